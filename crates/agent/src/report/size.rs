//! What keeps a report small, whatever is listed and whatever is wrong (I11).
//!
//! etcd takes objects of 1.5 MiB. With every bound reached at once a report has less than 1 MiB, with 1,000 StaticRoutes and
//! nothing wrong less than 300 KiB.

/// Failures of one StaticRoute that a report names.
pub(super) const MOST_OF_ONE: usize = 5;

/// Failures of all StaticRoutes together that a report names.
const MOST_OF_ALL: usize = 200;

/// Bytes of one sentence.
const LONGEST: usize = 240;

/// How many failures may still be named.
#[derive(Debug)]
pub(super) struct Allowance(usize);

impl Default for Allowance {
    fn default() -> Self {
        Self(MOST_OF_ALL)
    }
}

impl Allowance {
    /// The first few of one StaticRoute's.
    pub(super) fn some_of<T>(&mut self, all: impl Iterator<Item = T>) -> Vec<T> {
        let some: Vec<T> = all.take(MOST_OF_ONE.min(self.0)).collect();
        self.0 -= some.len();
        some
    }
}

/// A sentence that quotes what a user wrote: cut where it is too long, and without what JSON would blow up to six bytes.
pub(super) fn shortened(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    if text.len() <= LONGEST {
        return text.chars().map(plain).collect();
    }
    let mut short = String::with_capacity(LONGEST + 4);
    for letter in text.chars().map(plain) {
        if short.len() + letter.len_utf8() > LONGEST {
            break;
        }
        short.push(letter);
    }
    short.push('…');
    short
}
