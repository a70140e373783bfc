//! Finds output that need not be drawn, because it runs over the screen and off it again.

/// Less output than this is not looked at.
const MUCH: usize = 4 << 10;

/// Where the first line of the output ends, and from where on at least so many lines are left; `None` if nothing can be
/// left out. Only plain text can be left out: an escape sequence may tell the terminal anything.
pub fn skippable(bytes: &[u8], lines: usize) -> Option<(usize, usize)> {
    if bytes.len() < MUCH || bytes.contains(&b'\x1b') {
        return None;
    }
    let first = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let mut ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let last = ends.nth(lines)?;
    // The cursor must be at the beginning of a line there, as it is at the end of the first line.
    let is_whole = last > 0 && bytes[last - 1] == b'\r';
    (is_whole && last >= first).then_some((first, last + 1))
}
