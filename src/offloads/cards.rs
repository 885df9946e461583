//! The test of a card, put to cards that do right, wrong, or nothing, and to a real port of DPDK's.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use godwit_dpdk::{Eal, EalConfig, HugePages, Mempool, Port, PortConfig};
use godwit_wire::Mac;

use super::{Card, Looped, Proof, Seen, TestFrame, frames, test};

/// Long enough on any machine for what comes, which ends the test at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// What never comes costs so much.
const IN_VAIN: Duration = Duration::from_millis(60);

/// What a card makes of a checksum's field and the sum that belongs there.
type Fill = fn(field: u16, sum: u16) -> u16;

/// A card that is looped back.
struct Fake {
    fill: Fill,
    /// Each so manieth frame is lost; 0: none.
    loses: usize,
    /// Frames that it takes between two receptions.
    takes: usize,
    room: usize,
    sent: usize,
    inside: VecDeque<Vec<u8>>,
    runs: bool,
    /// Starts and stops so far.
    starts: (usize, usize),
}

/// As RFC 768 has it: what comes to zero is sent as all ones.
fn right(_field: u16, sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

fn card(fill: Fill) -> Fake {
    Fake {
        fill,
        loses: 0,
        takes: 32,
        room: 32,
        sent: 0,
        inside: VecDeque::new(),
        runs: false,
        starts: (0, 0),
    }
}

impl Card for Fake {
    type Error = Infallible;

    fn start(&mut self) -> Result<bool, Infallible> {
        assert!(!self.runs, "a card that runs cannot be set up");
        (self.runs, self.starts.0) = (true, self.starts.0 + 1);
        Ok(true)
    }

    fn send(&mut self, frame: &TestFrame) -> bool {
        assert!(self.runs);
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.sent += 1;
        if self.loses == 0 || !self.sent.is_multiple_of(self.loses) {
            let mut bytes = frame.blank.clone();
            let udp = 14 + frame.l3_len;
            // The field holds the pseudo-header's sum, so that all is added from the UDP header on.
            let mut sum: u32 = 0;
            for word in bytes[udp..].chunks(2) {
                sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            }
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let field = u16::from_be_bytes([bytes[udp + 6], bytes[udp + 7]]);
            let filled = (self.fill)(field, !(sum as u16));
            bytes[udp + 6..udp + 8].copy_from_slice(&filled.to_be_bytes());
            self.inside.push_back(bytes);
        }
        true
    }

    fn receive(&mut self, seen: &mut Seen<'_>) {
        assert!(self.runs);
        self.room = self.takes;
        self.inside.drain(..).for_each(|bytes| seen.frame(&bytes));
    }

    fn stop(&mut self) -> Result<(), Infallible> {
        assert!(self.runs, "a card that stands cannot be stopped");
        (self.runs, self.starts.1) = (false, self.starts.1 + 1);
        self.inside.clear();
        Ok(())
    }
}

fn proof(card: &mut Fake) -> Proof {
    proof_within(card, PATIENCE)
}

fn proof_within(card: &mut Fake, patience: Duration) -> Proof {
    test(card, &frames(Mac([2, 0, 0, 0, 0, 1])), patience).unwrap()
}

#[test]
fn r5_a_card_that_fills_in_what_belongs_there_is_proved_again_and_again() {
    let mut good = card(right);
    for n in 1..=3 {
        assert_eq!(proof(&mut good), Proof::Right);
        assert_eq!((good.starts, good.runs), ((n, n), false), "it is left as it was found");
    }
    // One frame at a time will do.
    assert_eq!(proof(&mut Fake { takes: 1, room: 1, ..card(right) }), Proof::Right);
}

#[test]
fn r5_a_card_that_fills_in_something_else_is_wrong() {
    let wrong: [Fill; 4] = [
        |field, _| field,
        |_, sum| sum,
        |_, sum| right(0, sum.wrapping_add(1)),
        // Zero says that there is no checksum.
        |_, _| 0,
    ];
    for fill in wrong {
        let mut bad = card(fill);
        assert_eq!(proof(&mut bad), Proof::Wrong);
        assert_eq!((bad.starts, bad.runs), ((1, 1), false), "and stopped all the same");
    }
}

#[test]
fn r5_a_card_that_loses_frames_or_takes_none_is_not_proved() {
    for mut bad in [
        Fake { loses: 8, ..card(right) },
        Fake { loses: 1, ..card(right) },
        Fake { takes: 0, room: 0, ..card(right) },
        Fake { takes: 0, room: 7, ..card(right) },
    ] {
        assert_eq!(proof_within(&mut bad, IN_VAIN), Proof::Missing);
        assert_eq!((bad.starts, bad.runs), ((1, 1), false));
    }
    // Wrong outweighs missing.
    assert_eq!(proof(&mut Fake { loses: 2, ..card(|field, _| field) }), Proof::Wrong);
}

#[test]
fn r5_a_port_of_dpdk_is_looped_judged_stopped_and_can_be_started_again() {
    let config = EalConfig { memory_mb: 64, huge: HugePages::Never, ..EalConfig::default() };
    let _eal = Eal::init(config).unwrap();
    let pool: Arc<Mempool> = Mempool::new("proof", 4095, 0, 2048, None).unwrap();
    // A ring brings back what was sent, and fills nothing in.
    let mut port = Port::probe("net_ring0").unwrap();
    let frames = frames(Mac(port.mac()));
    for _ in 0..2 {
        let proof = test(&mut Looped::new(&mut port, &pool), &frames, PATIENCE).unwrap();
        assert_eq!((proof, port.queues_out()), (Proof::Wrong, 0));
    }
    // A device that takes everything and gives nothing back.
    let mut null = Port::probe("net_null0,no-rx=1").unwrap();
    assert_eq!(test(&mut Looped::new(&mut null, &pool), &frames, IN_VAIN).unwrap(), Proof::Missing);
    port.configure(PortConfig::new(pool)).unwrap();
    let (rx, tx) = port.start().unwrap();
    assert_eq!((rx.len(), tx.len()), (1, 1), "it serves as if nothing had been");
}
