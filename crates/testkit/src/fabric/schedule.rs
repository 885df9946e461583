//! What happens in one run, all of it drawn from a seed before anything runs.

use godwit_wire::Span;

use super::rng::Rng;

/// What may go wrong in a schedule, and so what it promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Nothing fails: planned hot moves lose nothing and duplicate nothing.
    Planned,
    /// Sessions are cut and soon there again: moves still lose nothing.
    Cuts,
    /// The NVA and the sessions with it fail: VMs that do not move lose nothing.
    NvaFaults,
    /// The underlay and the switches fail too, and VMs start elsewhere without an order: the safety
    /// invariants hold, and everything converges afterwards.
    Anything,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 4] = [Class::Planned, Class::Cuts, Class::NvaFaults, Class::Anything];

    /// Hypervisors take their time, and holds suffice: no frame is lost.
    pub fn is_lossless(self) -> bool {
        matches!(self, Class::Planned | Class::Cuts)
    }
}

/// Families of the locators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Underlay {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

/// Something broken on purpose, to prove that it is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Switches do not forward packets in flight (R43).
    NoForwarding,
    /// Old NVEs do not hold packets for paused VMs (R45).
    NoHandoverHold,
    /// New NVEs do not hold packets that arrive early (R45).
    NoArriveHold,
    /// The NVA sends before its store has written, and a crash loses what was not written.
    ForgetfulStore,
    /// The underlay delivers some frames twice, in a schedule that promises otherwise.
    SecretDuplicates,
}

/// A VM.
#[derive(Clone, Debug)]
pub struct VmPlan {
    /// Its VN.
    pub vn: usize,
    /// Its number in the VN, which gives its addresses.
    pub number: usize,
    /// Where it runs first.
    pub home: usize,
    /// Its ports activate on the hypervisor's word only.
    pub explicit: bool,
}

/// Numbered frames from one VM to another, or to everybody in its VN.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// Sender.
    pub from: usize,
    /// Receiver, of the same VN; none: broadcast.
    pub to: Option<usize>,
    /// IPv6 inside.
    pub v6: bool,
    /// Gap between two frames.
    pub every: Span,
}

/// How a VM makes itself known at its new place (R18, R24 to R26).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announce {
    /// Not at all: the hypervisor activates the port.
    Explicit,
    /// Gratuitous ARP.
    Garp,
    /// Unsolicited neighbor advertisement.
    Na,
    /// QEMU's RARP.
    Rarp,
    /// With its first frame.
    FirstFrame,
}

/// How the old switch learns that the VM is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    /// The hypervisor says so.
    Asked,
    /// The port's link goes down.
    LinkDown,
    /// The port is removed at once.
    Unplugged,
}

/// When a move is called off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// Before the VM is paused.
    Prepared,
    /// While it is paused.
    Paused,
}

/// A move: the hypervisor's script with all its timing.
#[derive(Clone, Debug)]
pub struct MovePlan {
    /// When it is wanted, from the start of traffic. It waits for an earlier move of the same VM.
    pub at: Span,
    /// The VM.
    pub vm: usize,
    /// No move: the VM dies, and is started at the new switch without a word to the NVA.
    pub cold: bool,
    /// The new switch.
    pub to: usize,
    /// The new port is there before the order.
    pub plug_first: bool,
    /// The script waits so long for Prepared and goes on without.
    pub patience: Span,
    /// From the order's answer to the new port.
    pub plug_after: Span,
    /// How the old switch learns of the pause.
    pub pause: Pause,
    /// From the guest's pause to the old switch hearing of it.
    pub pause_lag: Span,
    /// How long the guest stands still.
    pub blackout: Span,
    /// How it makes itself known.
    pub announce: Announce,
    /// From its going on to its first frame.
    pub quiet: Span,
    /// Called off.
    pub abort: Option<Abort>,
    /// After a call-off the hypervisor activates the old port itself. A switch that never heard of the
    /// move learns of the call-off in no other way, so that it may only be left out where nothing fails.
    pub tell_old: bool,
    /// From the going on to the old port's removal.
    pub unplug_after: Span,
}

/// Something that fails, at a time from the start of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A session is cut.
    Cut(usize),
    /// A switch cannot reach the NVA for a while.
    Partition(usize, Span),
    /// The NVA is killed and comes back after a while.
    Kill(Span),
    /// The NVA is killed right before its next write is durable.
    KillBeforeWrite(Span),
    /// The NVA is killed right after its next write, before it says anything that rests on it.
    KillAfterWrite(Span),
    /// The underlay loses, repeats and delays more, for a while.
    Storm(Span),
    /// A switch dies and comes back after a while, remembering nothing.
    Reboot(usize, Span),
}

/// Delays and what the underlay does to frames.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Least and greatest delay of an underlay frame, in microseconds.
    pub underlay_us: (u64, u64),
    /// From control to a worker's tables, at most, in microseconds.
    pub mailbox_us: u64,
    /// From a worker to control, at most, in microseconds.
    pub event_us: u64,
    /// A message between switch and NVA, at most, in microseconds.
    pub session_us: u64,
    /// A transaction of the NVA's store, at most, in microseconds.
    pub commit_us: u64,
    /// Underlay frames lost in a storm, of a thousand.
    pub loss: u64,
    /// Underlay frames repeated in a storm, of a thousand.
    pub repeat: u64,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Where it comes from; also seeds what happens by chance during the run.
    pub seed: u64,
    /// What it may do and promises.
    pub class: Class,
    /// Workers of each switch.
    pub workers: Vec<usize>,
    /// Families of the locators.
    pub underlay: Underlay,
    /// Number of VNs.
    pub vns: usize,
    /// VMs.
    pub vms: Vec<VmPlan>,
    /// Flows.
    pub flows: Vec<FlowPlan>,
    /// Moves, by time.
    pub moves: Vec<MovePlan>,
    /// Faults, by time.
    pub faults: Vec<(Span, Fault)>,
    /// Delays.
    pub weather: Weather,
    /// Life of a forward entry.
    pub fwd_timer: Span,
    /// How long traffic runs.
    pub run: Span,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

impl Schedule {
    /// The schedule of a seed; the classes take turns.
    pub fn random(seed: u64) -> Schedule {
        Schedule::of(Class::ALL[(seed % 4) as usize], seed)
    }

    /// A schedule of one class.
    pub fn of(class: Class, seed: u64) -> Schedule {
        let mut rng = Rng::new(seed);
        let hosts = rng.between(2, 5) as usize;
        let workers = (0..hosts).map(|_| rng.between(1, 2) as usize).collect();
        let underlay = rng.pick(&[Underlay::V4, Underlay::V6, Underlay::Both]);
        let vns = rng.between(1, 2) as usize;
        let vms = draw_vms(&mut rng, hosts, vns);
        let run = rng.ms(800, 3000);
        let weather = draw_weather(&mut rng, class);
        let flows = draw_flows(&mut rng, &vms);
        let moves = draw_moves(&mut rng, class, &vms, hosts, run, &weather);
        let faults = draw_faults(&mut rng, class, hosts, run);
        let fwd_timer = Span::from_ms(rng.pick(&[5_000, 60_000]));
        let sabotage = None;
        Schedule {
            seed,
            class,
            workers,
            underlay,
            vns,
            vms,
            flows,
            moves,
            faults,
            weather,
            fwd_timer,
            run,
            sabotage,
        }
    }

    /// The same with something broken.
    #[must_use]
    pub fn broken(mut self, by: Sabotage) -> Schedule {
        self.sabotage = Some(by);
        self
    }

    /// Number of switches.
    pub fn hosts(&self) -> usize {
        self.workers.len()
    }
}

/// VMs numbered from 0 in each VN: the second VN repeats the addresses of the first.
fn draw_vms(rng: &mut Rng, hosts: usize, vns: usize) -> Vec<VmPlan> {
    let mut vms = Vec::new();
    for vn in 0..vns {
        for number in 0..rng.between(2, 4) as usize {
            vms.push(VmPlan { vn, number, home: rng.index(hosts), explicit: rng.chance(200) });
        }
    }
    vms
}

/// Everybody sends to somebody, some to more.
fn draw_flows(rng: &mut Rng, vms: &[VmPlan]) -> Vec<FlowPlan> {
    let mut flows = Vec::new();
    for (from, vm) in vms.iter().enumerate() {
        for (to, peer) in vms.iter().enumerate() {
            if to != from && peer.vn == vm.vn && rng.chance(600) {
                let (v6, every) = (rng.chance(500), rng.ms(4, 25));
                flows.push(FlowPlan { from, to: Some(to), v6, every });
            }
        }
        if rng.chance(150) {
            flows.push(FlowPlan { from, to: None, v6: false, every: rng.ms(50, 150) });
        }
    }
    flows
}

fn draw_weather(rng: &mut Rng, class: Class) -> Weather {
    let least = rng.between(5, 100);
    let stormy = class == Class::Anything;
    Weather {
        underlay_us: (least, least + rng.pick(&[10, 200, 2000])),
        mailbox_us: rng.pick(&[20, 200, 2000]),
        event_us: rng.pick(&[20, 500]),
        session_us: rng.pick(&[100, 1000, 10_000]),
        commit_us: rng.pick(&[50, 1000, 10_000]),
        loss: if stormy { rng.between(0, 300) } else { 0 },
        repeat: if stormy { rng.between(0, 200) } else { 0 },
    }
}

fn draw_moves(
    rng: &mut Rng,
    class: Class,
    vms: &[VmPlan],
    hosts: usize,
    run: Span,
    weather: &Weather,
) -> Vec<MovePlan> {
    let count = rng.between(1, 8);
    // Some schedules move one VM over and over, and some everything at once.
    let (favourite, window) = (rng.index(vms.len()), rng.pick(&[run.0 / 20, run.0 / 2, run.0 * 8 / 10]));
    let keen = rng.chance(300);
    let mut moves = Vec::new();
    for _ in 0..count {
        let vm = if keen { favourite } else { rng.index(vms.len()) };
        let at = Span(rng.below(window));
        moves.push(draw_move(rng, class, &vms[vm], vm, at, hosts, weather));
    }
    if rng.chance(150) && vms.len() >= 2 {
        moves.extend(draw_swap(rng, class, vms, hosts, run, weather));
    }
    moves.sort_by_key(|m| m.at);
    moves
}

/// Two VMs change places at the same time.
fn draw_swap(
    rng: &mut Rng,
    class: Class,
    vms: &[VmPlan],
    hosts: usize,
    run: Span,
    weather: &Weather,
) -> [MovePlan; 2] {
    let (a, at) = (rng.index(vms.len()), Span(rng.below(run.0 / 2)));
    let b = (a + 1 + rng.index(vms.len() - 1)) % vms.len();
    let mut there = draw_move(rng, class, &vms[a], a, at, hosts, weather);
    let mut back = draw_move(rng, class, &vms[b], b, at, hosts, weather);
    (there.to, back.to) = (vms[b].home, vms[a].home);
    [there, back]
}

fn draw_move(
    rng: &mut Rng,
    class: Class,
    plan: &VmPlan,
    vm: usize,
    at: Span,
    hosts: usize,
    weather: &Weather,
) -> MovePlan {
    let calm = class.is_lossless();
    // A hypervisor stops a VM's last device before it starts its first one elsewhere, and that takes
    // longer than a switch needs to hear of it. No frame of the VM is under way when it pauses.
    let least = 3000 + 3 * (weather.mailbox_us + weather.event_us);
    let announce = match rng.below(5) {
        _ if plan.explicit => Announce::Explicit,
        0 => Announce::Explicit,
        1 => Announce::Garp,
        2 => Announce::Na,
        3 => Announce::Rarp,
        _ => Announce::FirstFrame,
    };
    // A guest that talks before its port is activated loses what it says (R15); one that waits so
    // long does not.
    let settled = 2000 + 2 * (weather.mailbox_us + weather.event_us);
    MovePlan {
        at,
        vm,
        cold: class == Class::Anything && rng.chance(80),
        to: rng.index(hosts),
        plug_first: rng.chance(300),
        patience: if calm { Span::from_ms(5000) } else { rng.ms(0, 1500) },
        plug_after: rng.us(100, 20_000),
        pause: if calm { Pause::Asked } else { rng.pick(&[Pause::Asked, Pause::LinkDown, Pause::Unplugged]) },
        pause_lag: rng.us(10, 1000),
        blackout: rng.us(least, least + rng.clone().pick(&[1000, 50_000, 300_000])),
        announce,
        quiet: if calm { rng.us(settled, settled + 5000) } else { rng.us(0, 5000) },
        abort: if rng.chance(200) { Some(rng.pick(&[Abort::Prepared, Abort::Paused])) } else { None },
        tell_old: rng.chance(500) || class != Class::Planned,
        unplug_after: rng.us(1000, 300_000),
    }
}

fn draw_faults(rng: &mut Rng, class: Class, hosts: usize, run: Span) -> Vec<(Span, Fault)> {
    if class == Class::Planned {
        return Vec::new();
    }
    if class == Class::Cuts {
        let cuts = (0..rng.between(1, 6)).map(|_| (Span(rng.below(run.0)), Fault::Cut(rng.index(hosts))));
        let mut cuts: Vec<_> = cuts.collect();
        cuts.sort_by_key(|f| f.0);
        return cuts;
    }
    let mut faults = Vec::new();
    for _ in 0..rng.between(1, 5) {
        let at = Span(rng.below(run.0));
        let down = rng.ms(10, 800);
        let kinds = if class == Class::Anything { 7 } else { 5 };
        let fault = match rng.below(kinds) {
            0 => Fault::Cut(rng.index(hosts)),
            1 => Fault::Partition(rng.index(hosts), rng.ms(50, 1500)),
            2 => Fault::Kill(down),
            3 => Fault::KillBeforeWrite(down),
            4 => Fault::KillAfterWrite(down),
            5 => Fault::Storm(rng.ms(50, 800)),
            _ => Fault::Reboot(rng.index(hosts), rng.ms(1, 500)),
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|f| f.0);
    faults
}
