//! Sessions by words: of what they are called, of whose they are, and by the beginning of their id. One of the words leads to
//! the sessions that may be meant, in the order of their numbers; the others are asked of what it leads to
//! (`docs/decisions/0065-search.md`).

use std::collections::{BTreeSet, HashMap, HashSet};

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::relation::Acquaintance;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_store::{FoundBy, Postings, PrincipalRow, SessionRow};

use super::by_number::ByNumber;
use super::list::{Counts, ListQuery, Page};
use super::word_query::WordQuery;
use super::{Queries, SessionQuery};
use crate::error::Error;
use crate::gate::Order;

/// How many sessions are looked at together, at most and at least.
const CHUNK: usize = 1_000;
const SMALLEST_CHUNK: usize = 50;
/// Most words of an application that one may begin, and most people that it may be a name of.
const MOST_WORDS: usize = 500;
const MOST_PEOPLE: u32 = 100;
/// How far it is counted where the words of a question lead, to know which of them leads to the fewest.
const WEIGHED: usize = 1_000;
/// How many words of one term are tried, the longest first, until one leads to few enough.
const TRIED: usize = 4;

/// Where every session that one of the terms fits is found.
#[derive(Debug, Default)]
struct Leads {
    words: Vec<(ApplicationNumber, Vec<String>)>,
    principals: Vec<PrincipalNumber>,
    numbers: Option<(SessionNumber, SessionNumber)>,
}

/// What is looked for, and how far that has come.
struct WordSearch<'query> {
    caller: &'query Caller,
    words: &'query WordQuery,
    filter: Filter,
    applications: Vec<ApplicationNumber>,
    leads: Leads,
    order: ByNumber,
    /// Whether those are wanted too that have ended.
    ended: bool,
    /// Whether the caller may find sessions by whose they are.
    by_people: bool,
}

/// A session that fits, with its row where it has ended.
struct Match {
    number: SessionNumber,
    connected_at: Time,
    status: DerivedStatus,
    row: Option<SessionRow>,
}

impl WordSearch<'_> {
    /// What each application is asked for.
    fn asked(&self) -> Vec<(ApplicationNumber, FoundBy<'_>)> {
        let words = self.leads.words.iter();
        let mut asked: Vec<_> =
            words.map(|(application, words)| (*application, FoundBy::Words(words))).collect();
        for application in self.applications.iter().filter(|_| self.ended) {
            if !self.leads.principals.is_empty() {
                asked.push((*application, FoundBy::Principals(&self.leads.principals)));
            }
            if let Some((first, last)) = self.leads.numbers {
                asked.push((*application, FoundBy::Numbers(first, last)));
            }
        }
        asked
    }
}

/// How many lists there are by which sessions are found.
fn lists(by: FoundBy<'_>) -> usize {
    match by {
        FoundBy::Words(words) => words.len(),
        FoundBy::Principals(principals) => principals.len(),
        FoundBy::Numbers(..) => 1,
    }
}

impl Queries {
    /// A page of the sessions that words are found in, in the order in which they connected.
    pub(super) async fn page_found(
        &self,
        caller: &Caller,
        query: &ListQuery,
        words: &WordQuery,
    ) -> Result<Page, Error> {
        if query.sort.by != Order::Connected {
            let message = "what is found by words is in the order in which sessions connected: with q, sort must be \
                           created or -created";
            return Err(Error::field("sort", message));
        }
        if query.as_of.is_some() {
            return Err(not_then());
        }
        let position = self.context.committer.tip().borrow().position;
        let mut search = self.word_search(caller, &query.filter, words, query.sort.descending).await?;
        if let Some((_, id)) = query.after {
            let number = self.context.session_number(caller, id).await?;
            search.order.after = Some(number.ok_or_else(Error::foreign_cursor)?);
        }
        // One more than asked for tells whether there is another page.
        let wanted = query.skip + query.limit as usize + 1;
        let mut found = Vec::new();
        while found.len() < wanted {
            let (more, done) = self.find_on(&mut search, wanted - found.len()).await?;
            found.extend(more);
            if done {
                break;
            }
        }
        found.drain(..query.skip.min(found.len()));
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let last = found.last().map(|last| (last.connected_at, last.number));
        let entries = found.into_iter().map(|one| (one.connected_at, one.number, one.row)).collect();
        let items = self.shown(caller, entries, &search.filter).await?;
        let next = match last.filter(|_| more) {
            Some((at, number)) => self.id_of(number, &items).await?.map(|id| (at, id)),
            None => None,
        };
        Ok(Page { items, next, walk: None, position, exact_since: None })
    }

    /// Counts the sessions that words are found in, by status.
    pub async fn count_found(
        &self,
        caller: &Caller,
        query: &SessionQuery,
        words: &WordQuery,
        as_of: Option<super::AsOf>,
    ) -> Result<Counts, Error> {
        if as_of.is_some() {
            return Err(not_then());
        }
        let position = self.context.committer.tip().borrow().position;
        let mut search = self.word_search(caller, query, words, true).await?;
        let mut counts = Counts { position, ..Counts::default() };
        loop {
            let (found, done) = self.find_on(&mut search, CHUNK).await?;
            for one in found {
                *counts.of_mut(one.status) += 1;
            }
            if done {
                return Ok(counts);
            }
        }
    }

    async fn word_search<'query>(
        &self,
        caller: &'query Caller,
        query: &SessionQuery,
        words: &'query WordQuery,
        descending: bool,
    ) -> Result<WordSearch<'query>, Error> {
        let filter = self.context.filter(caller, query).await?;
        let mut search = WordSearch {
            caller,
            words,
            applications: self.searched(caller, &filter),
            leads: Leads::default(),
            order: ByNumber { descending, after: None },
            ended: filter.has_status(DerivedStatus::Disconnected),
            by_people: caller.acquaintance() == Acquaintance::Everybody,
            filter,
        };
        self.lead(&mut search).await?;
        Ok(search)
    }

    /// Finds the term that leads to the fewest sessions.
    async fn lead(&self, search: &mut WordSearch<'_>) -> Result<(), Error> {
        let mut least: Option<(usize, Leads)> = None;
        let mut refused = None;
        for term in 0..search.words.terms.len() {
            match self.leads_of(search, term).await {
                Ok(leads) => {
                    search.leads = leads;
                    let weight = self.weight(search).await?;
                    if least.as_ref().is_none_or(|(known, _)| weight < *known) {
                        least = Some((weight, std::mem::take(&mut search.leads)));
                    }
                }
                Err(error @ Error::Invalid { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (least, refused) {
            (Some((_, leads)), _) => search.leads = leads,
            (None, Some(error)) => return Err(error),
            (None, None) => {}
        }
        Ok(())
    }

    /// Where the sessions are that a term fits: by the longest of its words that does not begin too many others.
    async fn leads_of(&self, search: &WordSearch<'_>, term: usize) -> Result<Leads, Error> {
        let store = &self.context.store;
        let term = &search.words.terms[term];
        let mut leads = Leads::default();
        if search.by_people {
            let organization = search.caller.organization;
            leads.principals = store.principals_called(organization, &term.text, MOST_PEOPLE + 1).await?;
            if leads.principals.len() > MOST_PEOPLE as usize {
                let message = format!("more than {MOST_PEOPLE} people are called {}: say more", term.text);
                return Err(Error::field("q", message));
            }
        }
        if let Some((first, last)) = term.ids {
            leads.numbers = store.numbers_of_ids(first, last).await?;
        }
        let mut longest: Vec<&String> = term.words.iter().collect();
        longest.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let mut refused = None;
        for word in longest.into_iter().take(TRIED) {
            match self.word_leads(search, word).await {
                Ok((words, people)) => {
                    leads.words = words;
                    leads.principals.extend(people);
                    // Whose sessions are read twice, of them not all are read.
                    leads.principals.sort_unstable();
                    leads.principals.dedup();
                    return Ok(leads);
                }
                Err(error @ Error::Invalid { .. }) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(leads), Err)
    }

    /// The words that one begins, by application, and the people of whose names it begins a word.
    async fn word_leads(
        &self,
        search: &WordSearch<'_>,
        word: &String,
    ) -> Result<(Vec<(ApplicationNumber, Vec<String>)>, Vec<PrincipalNumber>), Error> {
        let store = &self.context.store;
        let mut found = Vec::new();
        for application in &search.applications {
            let words = store.words_beginning(*application, word, MOST_WORDS + 1).await?;
            if words.len() > MOST_WORDS {
                let message = format!("more than {MOST_WORDS} words begin with {word}: say more of it");
                return Err(Error::field("q", message));
            }
            if !words.is_empty() {
                found.push((*application, words));
            }
        }
        if !search.by_people {
            return Ok((found, vec![]));
        }
        let prefixes = std::slice::from_ref(word);
        let organization = search.caller.organization;
        let people =
            store.principals_found(organization, prefixes, PrincipalNumber(0), MOST_PEOPLE + 1).await?;
        if people.len() > MOST_PEOPLE as usize {
            let message = format!("{word} begins a name of more than {MOST_PEOPLE} people: say more of it");
            return Err(Error::field("q", message));
        }
        Ok((found, people.into_iter().map(|row| row.principal.number).collect()))
    }

    /// How many sessions these leads lead to, about, and no further than it is counted.
    async fn weight(&self, search: &WordSearch<'_>) -> Result<usize, Error> {
        let asked = search.asked();
        let each = WEIGHED / asked.iter().map(|(_, by)| lists(*by)).sum::<usize>().max(1);
        let mut weight = self.open_led_to(search, WEIGHED).len();
        for (application, by) in asked {
            let page = Postings { application, by, descending: true, after: None, limit: each.max(2) };
            weight += self.context.store.postings(&page).await?.iter().map(Vec::len).sum::<usize>();
        }
        Ok(weight)
    }

    /// Looks at the next sessions, about so many: which of them fit, and whether there are no more.
    async fn find_on(&self, search: &mut WordSearch<'_>, limit: usize) -> Result<(Vec<Match>, bool), Error> {
        if !search.ended && !self.skip_to_open(search) {
            return Ok((vec![], true));
        }
        let (candidates, bound) = self.led_to(search, limit.clamp(SMALLEST_CHUNK, CHUNK)).await?;
        let found = self.matches(search, candidates).await?;
        search.order.after = bound;
        Ok((found, bound.is_none()))
    }

    /// Passes over what lies before the next open session that fits, whatever it is called; there may be none.
    fn skip_to_open(&self, search: &mut WordSearch<'_>) -> bool {
        let now = self.context.clock.now();
        let slice = search.order.slice(search.order.after, 1);
        let known = self.context.gate.known_at(now);
        let next = known.page(search.caller.organization, &search.filter, &slice, now);
        let Some((_, next)) = next.first().copied() else { return false };
        search.order.after =
            Some(SessionNumber(if search.order.descending { next.0 + 1 } else { next.0 - 1 }));
        true
    }

    /// The next sessions that the leads lead to; and the last number up to which these are all, if there may be more.
    async fn led_to(
        &self,
        search: &WordSearch<'_>,
        limit: usize,
    ) -> Result<(BTreeSet<SessionNumber>, Option<SessionNumber>), Error> {
        let mut numbers = BTreeSet::new();
        let mut bounds = Vec::new();
        // Memory first: what ends in between is then found twice, not missed.
        let open = self.open_led_to(search, limit);
        bounds.extend(search.order.furthest(&open).filter(|_| open.len() >= limit));
        numbers.extend(open);
        let asked = search.asked();
        let count: usize = asked.iter().map(|(_, by)| lists(*by)).sum();
        let each = (2 * limit / count.max(1)).clamp(8, limit);
        for (application, by) in asked {
            let (descending, after) = (search.order.descending, search.order.after);
            let page = Postings { application, by, descending, after, limit: each };
            for list in self.context.store.postings(&page).await? {
                bounds.extend(search.order.furthest(&list).filter(|_| list.len() == each));
                numbers.extend(list);
            }
        }
        let bound = search.order.nearest(bounds);
        if let Some(bound) = bound {
            numbers.retain(|number| search.order.is_within(*number, bound));
        }
        Ok((numbers, bound))
    }

    /// The next open sessions of people or with ids that the leads lead to. Those with words are in the store's postings.
    fn open_led_to(&self, search: &WordSearch<'_>, limit: usize) -> Vec<SessionNumber> {
        let now = self.context.clock.now();
        let known = self.context.gate.known_at(now);
        let organization = search.caller.organization;
        let mut lists = Vec::new();
        if search.applications.is_empty() {
            return vec![];
        }
        let all = Filter { applications: search.applications.clone(), ..Filter::default() };
        if !search.leads.principals.is_empty() {
            let of_people = Filter { principals: search.leads.principals.clone(), ..all.clone() };
            lists.push(known.page(
                organization,
                &of_people,
                &search.order.slice(search.order.after, limit),
                now,
            ));
        }
        if let Some((first, last)) = search.leads.numbers {
            let (first, last) = (SessionNumber(first.0 - 1), SessionNumber(last.0 + 1));
            let after = match search.order.after {
                Some(after) if search.order.descending => after.min(last),
                Some(after) => after.max(first),
                None if search.order.descending => last,
                None => first,
            };
            let page = known.page(organization, &all, &search.order.slice(Some(after), limit), now);
            lists.push(page.into_iter().filter(|(_, number)| first < *number && *number < last).collect());
        }
        let numbers: BTreeSet<_> = lists.into_iter().flatten().map(|(_, number)| number).collect();
        match search.order.descending {
            true => numbers.into_iter().rev().take(limit).collect(),
            false => numbers.into_iter().take(limit).collect(),
        }
    }

    /// Those of some sessions that fit, in order.
    async fn matches(
        &self,
        search: &WordSearch<'_>,
        numbers: BTreeSet<SessionNumber>,
    ) -> Result<Vec<Match>, Error> {
        let now = self.context.clock.now();
        let open = self.open_that_fit(search, &numbers, now);
        let looked_at: Vec<_> = match search.ended {
            true => numbers
                .into_iter()
                .filter(|number| open.get(number).is_none_or(|fits| fits.is_some()))
                .collect(),
            false => open.iter().filter_map(|(number, fits)| fits.map(|_| *number)).collect(),
        };
        let mut rows = self.context.store.sessions(&looked_at).await?;
        rows.retain(|row| match open.get(&row.session.number) {
            Some(_) => true,
            None => row.session.ended.is_some() && search.filter.fits(&row.session, &row.facts(), now),
        });
        let people = self.people_of(search, &rows).await?;
        rows.retain(|row| search.words.fits(row, people.get(&row.session.principal)));
        rows.sort_unstable_by_key(|row| row.session.number);
        if search.order.descending {
            rows.reverse();
        }
        let matched = rows.into_iter().map(|row| {
            let (number, connected_at) = (row.session.number, row.session.connected_at);
            match open.get(&number).copied().flatten() {
                Some(status) => Match { number, connected_at, status, row: None },
                None => Match { number, connected_at, status: DerivedStatus::Disconnected, row: Some(row) },
            }
        });
        Ok(matched.collect())
    }

    /// Which of some sessions are open, with the status of those that fit the filter.
    fn open_that_fit(
        &self,
        search: &WordSearch<'_>,
        numbers: &BTreeSet<SessionNumber>,
        now: Time,
    ) -> HashMap<SessionNumber, Option<DerivedStatus>> {
        let known = self.context.gate.known_at(now);
        let open = numbers.iter().filter_map(|number| Some((*number, known.session(*number)?)));
        let judged = open.map(|(number, session)| {
            let facts = known.facts(number);
            let fits = search.filter.fits(session, &facts, now);
            (number, fits.then(|| derived_status(session, facts.seen_at, now)))
        });
        judged.collect()
    }

    /// Whose some sessions are, where the caller may find them by that.
    async fn people_of(
        &self,
        search: &WordSearch<'_>,
        rows: &[SessionRow],
    ) -> Result<HashMap<PrincipalNumber, PrincipalRow>, Error> {
        if !search.by_people {
            return Ok(HashMap::new());
        }
        let numbers: HashSet<_> = rows.iter().map(|row| row.session.principal).collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        let people = self.context.store.principals_numbered(&numbers).await?;
        Ok(people.into_iter().map(|row| (row.principal.number, row)).collect())
    }
}

fn not_then() -> Error {
    Error::field("q", "q is about sessions as they are now: leave out q or asOf")
}
