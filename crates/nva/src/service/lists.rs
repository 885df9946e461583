//! Long lists, in pages that fit in a message (R70).

use std::fmt::Display;

use godwit_api::prost::Message;
use godwit_api::tonic::Status;

/// Bytes of one page, about.
const PAGE: usize = 1 << 20;
/// Rows of one page.
const ROWS: usize = 2_000;

/// A page, and where the next one begins: behind its last row, whose place in the list is known by a word.
pub(super) fn page<P: Display, R: Message>(rows: impl Iterator<Item = (P, R)>) -> (Vec<R>, String) {
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    for (place, row) in rows {
        if page.len() >= ROWS || bytes >= PAGE {
            return (page, last.map_or_else(String::new, |p: P| p.to_string()));
        }
        bytes += row.encoded_len();
        page.push(row);
        last = Some(place);
    }
    (page, String::new())
}

/// Where a page begins: behind this place; `None`: it is the first.
pub(super) fn place<T: std::str::FromStr>(page: &str) -> Result<Option<T>, Status> {
    if page.is_empty() {
        return Ok(None);
    }
    let none =
        || Status::invalid_argument(format!("page {page:?} is none of this list; begin anew without it"));
    page.parse().map(Some).map_err(|_| none())
}

#[cfg(test)]
mod tests {
    use godwit_api::v1;

    use super::*;

    #[test]
    fn d3_a_long_list_comes_in_pages_and_is_whole() {
        let row = |n: usize| (n, v1::VmName { name: format!("vm{n}") });
        let (mut all, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let first = from.map_or(0, |last: usize| last + 1);
            let (rows, next) = page((first..4_500).map(row));
            all.extend(rows);
            pages += 1;
            from = place(&next).unwrap();
            if from.is_none() {
                break;
            }
        }
        assert_eq!((pages, all.len()), (3, 4_500));
        assert!(all.iter().enumerate().all(|(n, r)| r.name == format!("vm{n}")));
        assert!(place::<usize>("x").is_err());
    }

    #[test]
    fn d3_large_rows_make_small_pages() {
        let row = |n: usize| (n, v1::VmName { name: "x".repeat(PAGE / 2) });
        let (rows, next) = page((0..10).map(row));
        assert_eq!((rows.len(), next.as_str()), (2, "1"));
    }
}
