//! The guest at a socket: what librte_vhost tells of it, and which of its rings workers may use.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_packet::ReceiveOffloads;

use super::barrier;
use super::mapped;
use super::ring::{Look, Ring, TAKES_NO_SUM, TAKES_TSO4, TAKES_TSO6, take_away};
use super::screen::{After, Before, Screen};
use crate::link::{Link, LinkEvent};

/// `VIRTIO_NET_F_GUEST_CSUM`, `_GUEST_TSO4` and `_GUEST_TSO6` (virtio 1.1, section 5.1.3).
const GUEST_CSUM: u32 = 1;
const GUEST_TSO4: u32 = 7;
const GUEST_TSO6: u32 = 8;

/// Connections to one socket. One is the guest's; another may come while that one ends.
const CONNECTIONS: usize = 4;

/// What is told of a change of the guest.
type Callback = Box<dyn Fn(LinkEvent) + Send + Sync>;

/// What is to become of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The library carries it out.
    Pass,
    /// With this content.
    Instead(u64),
    /// The connection is closed.
    HangUp,
}

/// A socket's guest, shared by control, the workers and librte_vhost's thread.
///
/// Its locks are taken for moments, never while something of the library's is called that locks, nor while a worker
/// is waited for.
pub(super) struct Guest {
    /// The socket's path, by which the library knows it.
    pub(super) path: CString,
    /// Files that the library watches for it.
    pub(super) files: usize,
    /// Rings by the library's number: of queue `q`, 2q is what the guest receives by, 2q+1 what it sends by.
    rings: Vec<Arc<Ring>>,
    state: Mutex<State>,
    callback: Mutex<Option<Callback>>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection whose rings are used.
    attached: Option<i32>,
    /// What its guest has agreed to.
    features: u64,
    /// The last connection that came second, and was told of.
    refused: Option<i32>,
    /// All connections.
    screens: BTreeMap<i32, Screen>,
    /// For each queue that the guest receives by: control knows that it is in use.
    told: Vec<bool>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("path", &self.path).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receiver offload capabilities by features.
fn takes(features: u64) -> ReceiveOffloads {
    let has = |bit: u32| features >> bit & 1 != 0;
    ReceiveOffloads { checksum: has(GUEST_CSUM), tcp4: has(GUEST_TSO4), tcp6: has(GUEST_TSO6) }
}

/// The same as a ring has them.
fn bits(takes: ReceiveOffloads) -> u8 {
    let bit = |has: bool, bit: u8| if has { bit } else { 0 };
    bit(takes.checksum, TAKES_NO_SUM) | bit(takes.tcp4, TAKES_TSO4) | bit(takes.tcp6, TAKES_TSO6)
}

/// How a ring is set up; `None` where it cannot be used.
fn look(vid: i32, ring: u16) -> Option<Option<Look>> {
    let mut out = dpdk_sys::godwit_vhost_ring::default();
    // SAFETY: `out` is writable; any number of a connection or ring may be asked for. The connection's memory was
    // told of, which the caller has looked after.
    let rc = unsafe { dpdk_sys::godwit_vhost_ring(vid, ring, &mut out) };
    let base = out.base.cast::<u16>();
    match (rc, out.packed) {
        (0, _) if base.is_null() => Some(None),
        (0, 0) => Some(Some(Look::Split(base))),
        (0, _) => Some(Some(Look::Packed(base, out.size))),
        _ => None,
    }
}

impl State {
    fn screen(&self) -> Option<(i32, &Screen)> {
        let vid = self.attached?;
        Some((vid, self.screens.get(&vid)?))
    }
}

impl Guest {
    /// Nobody, at a socket for so many pairs of queues. It takes so many `files` of those that the library watches.
    pub(super) fn new(path: CString, queues: u16, files: usize) -> Guest {
        let state = State { told: vec![false; queues.into()], ..State::default() };
        Guest {
            path,
            files,
            rings: (0..2 * usize::from(queues)).map(|_| Arc::default()).collect(),
            state: Mutex::new(state),
            callback: Mutex::new(None),
        }
    }

    /// The ring of that number.
    pub(super) fn ring(&self, number: u16) -> Arc<Ring> {
        self.rings[usize::from(number)].clone()
    }

    /// Has `callback` called at changes, in place of an earlier one. It may be running until this returns.
    pub(super) fn watch(&self, callback: Option<Callback>) {
        *lock(&self.callback) = callback;
    }

    fn tell(&self, up: bool) {
        if let Some(callback) = &*lock(&self.callback) {
            callback(LinkEvent::Changed(link(up)));
        }
    }

    /// The link: up while a guest is there.
    pub(super) fn link(&self) -> Link {
        link(lock(&self.state).attached.is_some())
    }

    /// What the guest takes unfinished; nothing where nobody is there.
    pub(super) fn receive_offloads(&self) -> ReceiveOffloads {
        let state = lock(&self.state);
        if state.attached.is_some() { takes(state.features) } else { ReceiveOffloads::NOTHING }
    }

    /// Queues that the guest has begun to receive by, or ceased to, since the last call.
    pub(super) fn queue_changes(&self) -> Vec<(u16, bool)> {
        let mut state = lock(&self.state);
        let ready = |state: &State, queue: usize| {
            state.screen().is_some_and(|(_, screen)| screen.is_ready(2 * queue))
        };
        let mut changes = Vec::new();
        for queue in 0..state.told.len() {
            let now = ready(&state, queue);
            if std::mem::replace(&mut state.told[queue], now) != now {
                changes.push((queue as u16, now));
            }
        }
        changes
    }

    /// Frames, bytes and frames lost: of what the guest sends, and of what it receives.
    pub(super) fn counts(&self) -> [[u64; 3]; 2] {
        let mut sums = [[0; 3]; 2];
        for (number, ring) in self.rings.iter().enumerate() {
            for (sum, n) in sums[1 - number % 2].iter_mut().zip(ring.counts()) {
                *sum += n;
            }
        }
        sums
    }

    /// Somebody connects. `false`: hang up.
    pub(super) fn connected(&self, vid: i32) -> bool {
        let mut state = lock(&self.state);
        // Numbers are given anew, and the end of a connection whose socket was closed is not told.
        state.screens.remove(&vid);
        let room = state.screens.len() < CONNECTIONS;
        if room {
            state.screens.insert(vid, Screen::new(self.rings.len()));
        } else {
            let path = self.path.to_string_lossy();
            tracing::debug!("{path}: {CONNECTIONS} connections are there already; another one is refused");
        }
        room
    }

    /// A connection has ended.
    pub(super) fn disconnected(&self, vid: i32) {
        lock(&self.state).screens.remove(&vid);
        self.forget_memory(vid);
    }

    /// The socket was closed, and all connections with it.
    pub(super) fn closed(&self) {
        let screens = std::mem::take(&mut lock(&self.state).screens);
        screens.keys().for_each(|&vid| self.forget_memory(vid));
    }

    fn forget_memory(&self, vid: i32) {
        mapped::forget(vid, true);
        if mapped::was_gone(vid) {
            let path = self.path.to_string_lossy();
            tracing::warn!(
                "{path}: the guest's end cut memory short that it shares; the guest was lost by that"
            );
        }
    }

    /// A guest has set its rings up. `false`: another one is there.
    pub(super) fn attached(&self, vid: i32) -> bool {
        // SAFETY: any number of a connection may be given. No lock of the library's is held here.
        unsafe { dpdk_sys::godwit_vhost_stop_kicks(vid) };
        {
            let mut state = lock(&self.state);
            if state.attached.is_some_and(|other| other != vid) {
                if state.refused.replace(vid) != Some(vid) {
                    let path = self.path.to_string_lossy();
                    tracing::warn!(
                        "{path}: a second guest connects while the first is there: it is not served"
                    );
                }
                return false;
            }
            let mut features = 0;
            // SAFETY: `features` is writable; any number of a connection may be asked for.
            if unsafe { dpdk_sys::godwit_vhost_features(vid, &mut features) } != 0 {
                return false;
            }
            (state.attached, state.features) = (Some(vid), features);
            self.settle(&state);
        }
        self.tell(true);
        true
    }

    /// The guest has stopped its rings, or is gone. When this returns no worker is in them.
    pub(super) fn detached(&self, vid: i32) {
        {
            let mut state = lock(&self.state);
            if state.attached != Some(vid) {
                return;
            }
            (state.attached, state.features) = (None, 0);
            state.told.fill(false);
            self.rings.iter().for_each(|ring| ring.close());
        }
        take_away(self.rings.iter().map(|ring| &**ring));
        self.tell(false);
    }

    /// A ring was put into use, or out of it.
    pub(super) fn ring_changed(&self, vid: i32, ring: u16, ready: bool) {
        {
            let mut state = lock(&self.state);
            let Some(screen) = state.screens.get_mut(&vid) else { return };
            if !screen.ring_changed(ring, ready) {
                let path = self.path.to_string_lossy();
                tracing::debug!(ring, ready, "{path}: the guest uses more queues than the port has");
                return;
            }
            if state.attached != Some(vid) {
                return;
            }
            self.settle(&state);
        }
        self.tell(true);
    }

    /// A message has come: what is to become of it.
    pub(super) fn before(&self, vid: i32, request: u32, word: u64) -> Verdict {
        let mut state = lock(&self.state);
        let is_attached = state.attached == Some(vid);
        let Some(screen) = state.screens.get_mut(&vid) else { return Verdict::Pass };
        mapped::maps(false);
        let open = |ring: usize| is_attached && self.rings.get(ring).is_some_and(|r| r.is_open());
        match screen.before(request, word, open) {
            Before::Pass => Verdict::Pass,
            Before::Refuse => Verdict::HangUp,
            Before::Instead(word) => Verdict::Instead(word),
            Before::KeepPosition(ring) => {
                // SAFETY: any number of a connection or ring may be asked for.
                let at = unsafe { dpdk_sys::godwit_vhost_position(vid, ring) };
                Verdict::Instead(u64::from(at) << 32 | u64::from(ring))
            }
            Before::TakeAway => {
                mapped::maps(true);
                if !is_attached {
                    return Verdict::Pass;
                }
                self.rings.iter().for_each(|ring| ring.close());
                drop(state);
                // The library has locked the rings. A worker that sends may wait for that lock, and cannot be waited
                // for; one that receives never does.
                barrier::heavy();
                self.rings.iter().skip(1).step_by(2).for_each(|ring| ring.wait());
                Verdict::Pass
            }
        }
    }

    /// The library has carried a message out.
    pub(super) fn after(&self, vid: i32, request: u32, word: u64) {
        let mut state = lock(&self.state);
        let Some(screen) = state.screens.get_mut(&vid) else { return };
        let after = screen.after(request, word);
        match after {
            After::Memory => {
                mapped::note_memory(vid);
                mapped::maps(false);
            }
            After::Log => mapped::note_log(vid),
            After::Nothing | After::Rings => {}
        }
        if state.attached != Some(vid) {
            return;
        }
        if matches!(after, After::Rings | After::Memory) {
            self.settle(&state);
        }
        self.refresh(&state);
        // An announcement waits in the library and not in the ring.
        self.rings.iter().filter(|ring| ring.is_open()).for_each(|ring| ring.tell());
    }

    /// Opens the rings that can be used, and closes the others.
    fn settle(&self, state: &State) {
        let Some((vid, screen)) = state.screen() else { return };
        for (number, ring) in self.rings.iter().enumerate() {
            match (screen.is_usable(number), ring.is_open()) {
                (true, false) => match look(vid, number as u16) {
                    Some(at) => {
                        // A worker may have been in it since it was closed. One that sends reads nothing of this.
                        if number % 2 == 1 {
                            barrier::heavy();
                            ring.wait();
                        }
                        ring.open(vid, at, bits(takes(state.features)));
                    }
                    None => {
                        let path = self.path.to_string_lossy();
                        tracing::debug!(ring = number, "{path}: a ring that lies beyond the guest's memory");
                    }
                },
                (false, true) => ring.close(),
                _ => {}
            }
        }
    }

    /// Looks where the rings that guests send by lie now.
    fn refresh(&self, state: &State) {
        let Some((vid, _)) = state.screen() else { return };
        for (number, ring) in self.rings.iter().enumerate().skip(1).step_by(2) {
            if !ring.is_open() {
                continue;
            }
            let now = look(vid, number as u16);
            if now == Some(ring.at()) {
                continue;
            }
            ring.close();
            barrier::heavy();
            ring.wait();
            if let Some(at) = now {
                ring.open(vid, at, bits(takes(state.features)));
            }
        }
    }
}

fn link(up: bool) -> Link {
    Link { up, speed_mbps: None, full_duplex: true }
}
