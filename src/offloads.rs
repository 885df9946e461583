//! Whether an uplink's card computes the outer UDP checksums (R5): only if it says that it can, and in
//! mode `auto` only after it was seen to, since some cards report what they do not do.
//!
//! Proof is had before the port carries traffic: the card is looped back, frames whose checksum is not
//! there are sent, and they have to come back with the right one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_dpdk::{Mbuf, Mempool, Port, PortConfig, RxQueue, TxQueue};
use godwit_pipeline::packet::Unfinished;
use godwit_wire::outer::{OuterHeader, Patch, fill_udp_checksum, leave_udp_checksum};
use godwit_wire::{Ecn, FlowHash, Mac, Vni};

use crate::config::Offloads;

/// How long frames may take to come back.
const PATIENCE: Duration = Duration::from_millis(500);
/// Where a frame's addresses lead: prefixes for documentation, which nobody routes.
const V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const V6: [u128; 2] = [0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 2];
const PORT: u16 = 4789;

/// What a looped card did with frames whose checksum it had to fill in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// All came back, and right.
    Right,
    /// One came back with a wrong checksum.
    Wrong,
    /// Not all came back.
    Missing,
    /// The driver cannot loop the port back.
    NoLoop,
}

/// Who computes the checksums, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumOffload {
    /// The card, as it was seen to.
    Proved,
    /// The card, unproved, by order.
    Ordered,
    /// The switch, by order.
    Off,
    /// The switch: the card does not report that it can.
    Unreported,
    /// The switch: the card failed the test or could not be put to it.
    Unproved(Proof),
}

impl ChecksumOffload {
    /// The card computes them.
    pub fn by_card(&self) -> bool {
        matches!(self, ChecksumOffload::Proved | ChecksumOffload::Ordered)
    }

    /// Tells the operator; a card that promises what it does not do is worth a warning.
    pub fn log(&self, port: &str) {
        match self {
            ChecksumOffload::Unproved(Proof::Wrong | Proof::Missing) => {
                tracing::warn!(port = %port, "{self}")
            }
            _ => tracing::info!(port = %port, "{self}"),
        }
    }
}

impl fmt::Display for ChecksumOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChecksumOffload::Proved => "outer UDP checksums: by the card, which was tested",
            ChecksumOffload::Ordered => "outer UDP checksums: by the card, untested, as configured",
            ChecksumOffload::Off => "outer UDP checksums: in software, as configured",
            ChecksumOffload::Unreported => "outer UDP checksums: in software, the card offers none",
            ChecksumOffload::Unproved(Proof::Wrong) => {
                "outer UDP checksums: in software, the card's were wrong in the test"
            }
            ChecksumOffload::Unproved(Proof::Missing) => {
                "outer UDP checksums: in software, the card's test frames did not come back"
            }
            ChecksumOffload::Unproved(_) => {
                "outer UDP checksums: in software, the driver has no loopback to test the card's in"
            }
        })
    }
}

/// What follows from the order, the card's word, and a test that is made only where it matters.
fn judge<E>(
    asked: Offloads,
    reported: bool,
    test: impl FnOnce() -> Result<Proof, E>,
) -> Result<ChecksumOffload, E> {
    Ok(match asked {
        Offloads::Off => ChecksumOffload::Off,
        _ if !reported => ChecksumOffload::Unreported,
        Offloads::On => ChecksumOffload::Ordered,
        Offloads::Auto => match test()? {
            Proof::Right => ChecksumOffload::Proved,
            other => ChecksumOffload::Unproved(other),
        },
    })
}

/// Decides for a port that does not run yet; may run it for a moment, looped back.
///
/// # Errors
/// What DPDK said.
pub fn decide(
    asked: Offloads,
    port: &mut Port,
    pool: &Arc<Mempool>,
) -> Result<ChecksumOffload, godwit_dpdk::Error> {
    let info = port.dev_info()?;
    judge(asked, info.tx_checksums(), || {
        if !info.loops() {
            return Ok(Proof::NoLoop);
        }
        let frames = frames(Mac(port.mac()));
        test(&mut Looped::new(port, pool), &frames, PATIENCE)
    })
}

/// A card that is looped back, as the test sees it.
trait Card {
    type Error;

    /// Sets it up, looped back, and starts it; false where it has no queue to send or receive by.
    fn start(&mut self) -> Result<bool, Self::Error>;

    /// Sends a frame with the order to fill its checksum in. False where it cannot at the moment.
    fn send(&mut self, frame: &TestFrame) -> bool;

    /// Hands on what has come.
    fn receive(&mut self, seen: &mut Seen<'_>);

    /// Stops it, so that it can be set up for what it is for.
    fn stop(&mut self) -> Result<(), Self::Error>;
}

/// A port of DPDK's.
struct Looped<'a> {
    port: &'a mut Port,
    pool: &'a Arc<Mempool>,
    queues: Option<(RxQueue, TxQueue)>,
    back: Vec<Mbuf>,
}

impl<'a> Looped<'a> {
    fn new(port: &'a mut Port, pool: &'a Arc<Mempool>) -> Looped<'a> {
        Looped { port, pool, queues: None, back: Vec::with_capacity(64) }
    }
}

impl Card for Looped<'_> {
    type Error = godwit_dpdk::Error;

    fn start(&mut self) -> Result<bool, godwit_dpdk::Error> {
        let config = PortConfig { tx_checksums: true, loopback: true, ..PortConfig::new(self.pool.clone()) };
        self.port.configure(config)?;
        let (rx, tx) = self.port.start()?;
        self.queues = rx.into_iter().next().zip(tx.into_iter().next());
        Ok(self.queues.is_some())
    }

    fn send(&mut self, frame: &TestFrame) -> bool {
        let Some((_, tx)) = &mut self.queues else { return false };
        let Some(mbuf) = marked(self.pool, frame) else { return false };
        tx.tx(&mut vec![mbuf]) == 1
    }

    fn receive(&mut self, seen: &mut Seen<'_>) {
        let Some((rx, _)) = &mut self.queues else { return };
        rx.rx(&mut self.back, 32);
        self.back.drain(..).for_each(|mbuf| seen.frame(mbuf.data()));
    }

    fn stop(&mut self) -> Result<(), godwit_dpdk::Error> {
        self.queues = None;
        self.port.stop()
    }
}

/// Puts a card to the test.
fn test<C: Card>(card: &mut C, frames: &[TestFrame], patience: Duration) -> Result<Proof, C::Error> {
    let started = card.start()?;
    let proof = if started { exchange(card, frames, patience) } else { Proof::NoLoop };
    card.stop()?;
    Ok(proof)
}

/// A frame without its checksum, and how it should come back.
struct TestFrame {
    blank: Vec<u8>,
    l3_len: usize,
    right: Vec<u8>,
}

/// Both families; of even and odd length; long; and one whose checksum comes to zero, which has to be sent
/// as all ones, for zero says that there is none.
fn frames(mac: Mac) -> Vec<TestFrame> {
    let headers = [
        OuterHeader::v4(mac, mac, V4[0].into(), V4[1].into(), PORT, 64),
        OuterHeader::v6(mac, mac, V6[0].into(), V6[1].into(), PORT, 64),
    ];
    let kinds = [(60, false), (61, false), (1400, false), (80, true)];
    let pairs = headers.iter().flat_map(|h| kinds.map(|k| (h, k)));
    pairs.zip(1..).filter_map(|((header, (len, zero)), n)| frame(header, len, zero, n)).collect()
}

fn frame(header: &OuterHeader, inner_len: usize, zero: bool, number: u32) -> Option<TestFrame> {
    let mut right = vec![0; header.len()];
    let patch =
        Patch { vni: Vni::from_low24(number), hash: FlowHash(number.into()), class: Ecn::NotEct.into() };
    header.write(&mut right, inner_len, header.ttl(), patch);
    right.extend((0..inner_len).map(|i| (i * 7 + number as usize) as u8));
    let udp = header.len() - 16;
    if zero {
        // A word that makes the sum all ones: its own complement.
        let at = right.len() - 2;
        right[at..].fill(0);
        fill_udp_checksum(&mut right, PORT).ok()?;
        right.copy_within(udp + 6..udp + 8, at);
    }
    fill_udp_checksum(&mut right, PORT).ok()?;
    let mut blank = right.clone();
    let (_, l3_len) = leave_udp_checksum(&mut blank, PORT).ok()?;
    Some(TestFrame { blank, l3_len, right })
}

/// Sends all frames and waits for them to come back, as long as `patience` lasts.
fn exchange(card: &mut impl Card, frames: &[TestFrame], patience: Duration) -> Proof {
    let mut unsent = frames.iter().peekable();
    let mut seen = Seen::new(frames);
    let give_up = Instant::now() + patience;
    while Instant::now() < give_up && !seen.is_over() {
        while unsent.next_if(|f| card.send(f)).is_some() {}
        card.receive(&mut seen);
        std::thread::sleep(Duration::from_millis(1));
    }
    seen.proof()
}

/// A buffer with the frame and the order to fill the checksum in.
fn marked(pool: &Arc<Mempool>, frame: &TestFrame) -> Option<Mbuf> {
    let mut mbuf = pool.alloc()?;
    if !mbuf.set(&frame.blank) {
        return None;
    }
    let six = frame.l3_len > 20;
    mbuf.hand_on(Unfinished { l2_len: 14, l3_len: frame.l3_len, l4_len: 8, six, tcp: false, segment: 0 });
    Some(mbuf)
}

/// What has come back of the test frames.
struct Seen<'a> {
    frames: &'a [TestFrame],
    right: Vec<bool>,
    wrong: bool,
}

impl<'a> Seen<'a> {
    fn new(frames: &'a [TestFrame]) -> Seen<'a> {
        Seen { frames, right: vec![false; frames.len()], wrong: false }
    }

    /// Something came; others' frames may, too.
    fn frame(&mut self, got: &[u8]) {
        for (frame, right) in self.frames.iter().zip(&mut self.right) {
            if got == frame.right {
                *right = true;
            } else if same_but_for_checksum(got, frame) {
                self.wrong = true;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.wrong || self.right.iter().all(|r| *r)
    }

    fn proof(&self) -> Proof {
        match (self.wrong, self.right.iter().all(|r| *r)) {
            (true, _) => Proof::Wrong,
            (false, true) => Proof::Right,
            (false, false) => Proof::Missing,
        }
    }
}

fn same_but_for_checksum(got: &[u8], frame: &TestFrame) -> bool {
    let field = 14 + frame.l3_len + 6;
    let ends = |f: &[u8]| f.get(..field).zip(f.get(field + 2..)).map(|(a, b)| (a.to_vec(), b.to_vec()));
    got.len() == frame.right.len() && ends(got) == ends(&frame.right)
}

#[cfg(test)]
mod cards;
#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn verdict(asked: Offloads, reported: bool, proof: Option<Proof>) -> ChecksumOffload {
        judge(asked, reported, || proof.ok_or("no test was due")).unwrap()
    }

    #[test]
    fn r5_auto_uses_what_was_proved_and_nothing_else() {
        assert_eq!(verdict(Offloads::Auto, true, Some(Proof::Right)), ChecksumOffload::Proved);
        for proof in [Proof::Wrong, Proof::Missing, Proof::NoLoop] {
            let v = verdict(Offloads::Auto, true, Some(proof));
            assert!(v == ChecksumOffload::Unproved(proof) && !v.by_card());
        }
        // No test where nothing hangs on it.
        assert_eq!(verdict(Offloads::Auto, false, None), ChecksumOffload::Unreported);
        assert_eq!(verdict(Offloads::On, false, None), ChecksumOffload::Unreported);
        assert_eq!(verdict(Offloads::On, true, None), ChecksumOffload::Ordered);
        assert_eq!(verdict(Offloads::Off, true, None), ChecksumOffload::Off);
    }

    #[test]
    fn r5_a_card_that_does_what_it_says_passes() {
        let frames = frames(MAC);
        assert_eq!(frames.len(), 8);
        let mut seen = Seen::new(&frames);
        for f in &frames[1..] {
            seen.frame(&f.right);
        }
        seen.frame(b"somebody else's");
        assert_eq!((seen.proof(), seen.is_over()), (Proof::Missing, false));
        seen.frame(&frames[0].right);
        assert_eq!((seen.proof(), seen.is_over()), (Proof::Right, true));
    }

    #[test]
    fn r5_a_card_that_sends_what_it_was_given_fails() {
        let frames = frames(MAC);
        for f in &frames {
            let mut seen = Seen::new(&frames);
            seen.frame(&f.blank);
            assert_eq!(seen.proof(), Proof::Wrong);
        }
    }

    #[test]
    fn r5_a_card_that_sends_zero_for_zero_fails() {
        let frames = frames(MAC);
        let mut zeros = 0;
        for f in &frames {
            let field = 14 + f.l3_len + 6;
            if f.right[field..field + 2] == [0xff, 0xff] {
                zeros += 1;
                let mut sent = f.right.clone();
                sent[field..field + 2].fill(0);
                let mut seen = Seen::new(&frames);
                seen.frame(&sent);
                assert_eq!(seen.proof(), Proof::Wrong);
            }
        }
        assert_eq!(zeros, 2, "one of each family");
    }
}
