//! Pauses of a VM's connections, which an operator orders and its record names (R54). The VM runs on meanwhile; only
//! what comes for it is held or dropped, by the NVE that has it.

use godwit_model::{ConnectionPause, PauseEnd, VmRecord, WhilePaused};
use godwit_wire::{Instant, Span};

use crate::io::Level;

use super::{Ctx, Vm};

/// The NVA ends a pause in time. Where it is away, this NVE does, so long after that.
const GRACE: Span = Span::from_ms(2000);

/// A pause as this NVE knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Connections {
    pause: ConnectionPause,
    /// When this NVE ends it, counted from when it heard of it.
    until: Instant,
    /// It has ended here, whatever the record says.
    over: bool,
}

impl Vm {
    /// What becomes of frames for it by the pause that is on.
    pub(crate) fn while_paused(&self) -> Option<WhilePaused> {
        self.connections.filter(|c| !c.over).map(|c| c.pause.treatment)
    }

    /// Takes the record's word on a pause; true where what is held is to be dropped, because its time is over.
    pub(crate) fn follow_connections(&mut self, record: Option<&VmRecord>, now: Instant) -> bool {
        let said = record.and_then(|r| r.pause);
        let before = self.while_paused();
        let known = self.connections.filter(|c| said.is_some_and(|p| p.since_us == c.pause.since_us));
        self.connections = said.filter(ConnectionPause::is_on).map(|pause| {
            let limit = Span::from_ms(u64::from(pause.limit_s) * 1000);
            let (until, over) = known.map_or((now + limit + GRACE, false), |c| (c.until, c.over));
            Connections { pause, until, over }
        });
        let ended = said.and_then(|p| p.ended).is_some_and(|(end, _)| end == PauseEnd::TimedOut);
        let dropped = core::mem::take(&mut self.drops_held) || ended && before == Some(WhilePaused::Hold);
        dropped && self.is_hosted()
    }

    pub(super) fn connections_deadline(&self) -> Option<Instant> {
        self.connections.filter(|c| !c.over).map(|c| c.until)
    }

    /// The NVA has not ended the pause in time.
    pub(super) fn connections_due(&mut self, cx: &mut Ctx<'_>) {
        let Some(c) = self.connections.as_mut().filter(|c| !c.over && c.until <= cx.now) else { return };
        c.over = true;
        if !self.is_hosted() {
            return;
        }
        self.drops_held = true;
        let text =
            format!("{}: the time of its pause is over, and the NVA has not said so: it goes on", self.key);
        cx.note(Level::Alarm, text);
    }

    /// It runs here, and frames for it are held for its pause: whoever comes after them waits behind them here.
    pub(crate) fn holds_for_pause(&self) -> bool {
        self.phase.is_running() && self.while_paused() == Some(WhilePaused::Hold)
    }
}
