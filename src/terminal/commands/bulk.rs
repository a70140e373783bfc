//! Output by the megabyte: what runs over the screen and off it again need not be drawn.

/// Less than this is not worth a look.
const MUCH: usize = 4 << 10;

/// The end of the first line, and where to go on so that at least so many lines are left; none if nothing can be left out.
/// Only text is: where there is an escape sequence, the terminal may be told anything.
pub fn skippable(bytes: &[u8], lines: usize) -> Option<(usize, usize)> {
    if bytes.len() < MUCH || bytes.contains(&b'\x1b') {
        return None;
    }
    let first = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let mut ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let last = ends.nth(lines)?;
    // With the cursor at the beginning of a line, as at the end of the first.
    let is_whole = last > 0 && bytes[last - 1] == b'\r';
    (is_whole && last >= first).then_some((first, last + 1))
}
