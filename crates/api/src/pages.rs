//! Answers of a switch in pages, so that each fits in a message of its session with the NVA (R70).
//!
//! A request says how many rows the asker has ([`AdminRequest::from`](v1::AdminRequest)); the answer has those that
//! follow, and says where the next page begins. What has no rows and does not fit is an error to the asker.

use prost::Message;

use crate::v1::{self, admin_response::Kind as Answer};

/// Largest answer of a switch, in bytes: with what is around it, it fits in [`MAX_SAID_BYTES`](crate::MAX_SAID_BYTES).
pub const MAX_ANSWER_BYTES: usize = 60 << 10;

/// The page of an answer that begins behind `from` rows.
#[must_use]
pub fn page(answer: Answer, from: u64) -> v1::AdminResponse {
    let (kind, next) = match answer {
        Answer::Entries(list) => {
            let (entries, next) = cut(list.entries, from);
            (Answer::Entries(v1::EntryList { entries }), next)
        }
        Answer::Counters(list) => {
            let (counters, next) = cut(list.counters, from);
            (Answer::Counters(v1::CounterList { counters, ..list }), next)
        }
        Answer::Ports(list) => {
            let (ports, next) = cut(list.ports, from);
            (Answer::Ports(v1::PortList { ports }), next)
        }
        other => (other, 0),
    };
    let response = v1::AdminResponse { kind: Some(kind), next };
    let length = response.encoded_len();
    if length <= MAX_ANSWER_BYTES { response } else { too_large(length) }
}

/// What is answered instead of something that does not fit in a message.
#[must_use]
pub fn too_large(length: usize) -> v1::AdminResponse {
    let text = format!(
        "the answer has {length} bytes and does not fit in a message of {MAX_ANSWER_BYTES}; ask for less (a single VN, \
         port or routing domain)"
    );
    v1::AdminResponse { kind: Some(Answer::Error(v1::AdminError { text })), next: 0 }
}

/// Rows behind the first `from`, as many as fit, and where the next page begins; 0: these were the last ones.
fn cut<R: Message>(rows: Vec<R>, from: u64) -> (Vec<R>, u64) {
    // Tags, lengths, and what stands beside the rows.
    const AROUND: usize = 2 << 10;
    const EACH: usize = 8;
    let total = rows.len() as u64;
    let mut bytes = AROUND;
    let fits = |row: &R| {
        bytes += row.encoded_len() + EACH;
        bytes <= MAX_ANSWER_BYTES
    };
    let first = usize::try_from(from).unwrap_or(usize::MAX);
    let page: Vec<R> = rows.into_iter().skip(first).take_while(fits).collect();
    let next = from.saturating_add(page.len() as u64);
    // Where not even one row fits, what is left cannot be told.
    if next >= total || page.is_empty() { (page, 0) } else { (page, next) }
}

/// Joins a further page to those before it; `false` where it is of another kind.
#[must_use]
pub fn join(all: &mut Answer, page: Answer) -> bool {
    match (all, page) {
        (Answer::Entries(all), Answer::Entries(page)) => all.entries.extend(page.entries),
        (Answer::Counters(all), Answer::Counters(page)) => all.counters.extend(page.counters),
        (Answer::Ports(all), Answer::Ports(page)) => all.ports.extend(page.ports),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(n: u64) -> Answer {
        let entry = |mac| v1::Entry {
            key: Some(v1::VmKey { vni: 100, mac }),
            state: "remote".into(),
            nve: "nve-a".into(),
            locator: "2001:db8::1".into(),
            ..Default::default()
        };
        Answer::Entries(v1::EntryList { entries: (0..n).map(entry).collect() })
    }

    #[test]
    fn d3_many_entries_come_in_pages_that_fit() {
        let (mut all, mut from, mut pages) = (Answer::Entries(v1::EntryList::default()), 0, 0);
        loop {
            let response = page(entries(5_000), from);
            assert!(response.encoded_len() <= MAX_ANSWER_BYTES);
            assert!(join(&mut all, response.kind.unwrap()));
            pages += 1;
            from = response.next;
            if from == 0 {
                break;
            }
        }
        assert!(pages > 2, "{pages}");
        assert_eq!(all, entries(5_000));
    }

    #[test]
    fn d3_the_last_page_says_so_and_beyond_it_there_is_nothing() {
        assert_eq!(page(entries(3), 0), v1::AdminResponse { kind: Some(entries(3)), next: 0 });
        let Some(Answer::Entries(beyond)) = page(entries(3), 9).kind else { panic!("another kind") };
        assert_eq!(beyond.entries, []);
    }

    #[test]
    fn d3_what_has_no_rows_and_does_not_fit_is_an_error() {
        let done = Answer::Done(v1::Done { text: "x".repeat(MAX_ANSWER_BYTES + 1) });
        let Some(Answer::Error(e)) = page(done, 0).kind else { panic!("no error") };
        assert!(e.text.contains("ask for less"), "{}", e.text);
        let entry = v1::Entry { state: "x".repeat(MAX_ANSWER_BYTES), ..Default::default() };
        let huge = Answer::Entries(v1::EntryList { entries: vec![entry] });
        assert!(page(huge, 0).encoded_len() <= MAX_ANSWER_BYTES);
    }
}
