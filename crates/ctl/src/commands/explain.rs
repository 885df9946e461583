//! A move's history in a few sentences: how it stands or ended, why, and what came between.

use godwit_api::v1;
use godwit_api::v1::MovePhase as Phase;
use godwit_api::v1::MoveStepKind as Step;

/// What the record says, one sentence each; the first says how the move stands.
pub fn explain(r: &v1::MoveRecord) -> Vec<String> {
    let steps = |kind| r.steps.iter().filter(move |s| s.what() == kind);
    let unplanned = r.origin() == v1::MoveOrigin::Unplanned;
    let mut told = if unplanned { nobody_ordered_it(r) } else { vec![standing(r)] };
    told.extend(steps(Step::Overtaken).map(|s| format!("It was overtaken: {}.", s.note)));
    told.extend(
        steps(Step::Denied)
            .filter(|_| !unplanned)
            .map(|s| format!("The claim of {} was refused: {}.", s.nve, s.note)),
    );
    match steps(Step::Restarted).count() {
        0 => {}
        1 => told.push("The NVA restarted meanwhile; the move went on from what it had on its disk.".into()),
        n => told.push(format!(
            "The NVA restarted {n} times meanwhile; the move went on from what it had on its disk."
        )),
    }
    told.extend(connections(r));
    let dropped: u64 = r.counts.iter().filter_map(|c| c.counts).map(|c| c.dropped).sum();
    if dropped > 0 {
        told.push(format!("{dropped} held packets were dropped."));
    }
    told
}

/// Whether the VM's connections are paused, or were (R54).
fn connections(r: &v1::MoveRecord) -> Option<String> {
    let word = |s: &&v1::MoveStep| matches!(s.what(), Step::ConnectionsPaused | Step::ConnectionsResumed);
    let last = r.steps.iter().rfind(word)?;
    let (vm, note) = (&r.vm, &last.note);
    Some(match last.what() {
        Step::ConnectionsPaused => {
            format!("Its connections are paused: {note}; `godwitctl vm resume {vm}` lets them go on.")
        }
        _ => format!("Its connections were paused and go on: {note}."),
    })
}

/// A claim that no order explains, and what came of it (R21, R22).
fn nobody_ordered_it(r: &v1::MoveRecord) -> Vec<String> {
    let (vm, from, to) = (&r.vm, &r.from, &r.to);
    let note = |kind| r.steps.iter().rev().find(|s| s.what() == kind).map(|s| s.note.as_str());
    let why = note(Step::Claimed).map(|why| format!(" ({why})")).unwrap_or_default();
    let mut told = vec![format!("Nobody ordered it: {to} claimed {vm}{why}, which was at {from}.")];
    match note(Step::Answered) {
        Some(word) => told.push(format!("The NVA asked {from}, which said that {word}.")),
        None if note(Step::Asked).is_some() => {
            // Perhaps it did later: whoever is away is not waited for, nor is anybody once the claim is refused.
            told.push(format!("The NVA asked {from}, which had not answered when the claim was decided."))
        }
        None => {}
    }
    told.push(match r.phase() {
        Phase::Failed => {
            format!("The claim was refused: {}.", note(Step::Denied).unwrap_or("for no known reason"))
        }
        // By what follows: the VM may have gone on, or may have been stopped.
        Phase::Done if note(Step::Overtaken).is_some() => format!("{to} got {vm}."),
        Phase::Done => format!("{to} got {vm}, and every connected NVE of its VN knows."),
        _ => format!("{to} got {vm}; some NVEs of its VN have not acknowledged it yet."),
    });
    told.extend(note(Step::Frozen).map(|why| format!("{vm} is frozen at {to}: {why}.")));
    told
}

fn standing(r: &v1::MoveRecord) -> String {
    let (vm, from, to) = (&r.vm, &r.from, &r.to);
    let last = |kind| r.steps.iter().rev().find(|s| s.what() == kind).map(|s| s.note.as_str());
    match r.phase() {
        Phase::Done => match last(Step::Done) {
            Some(note) if !note.is_empty() => format!("{vm} was moved to {to}; the move ended {note}."),
            // By what follows: the VM may have gone on, or may have been stopped.
            _ if last(Step::Overtaken).is_some() => format!("{vm} was moved to {to}."),
            _ => format!("{vm} was moved to {to}, and every connected NVE of its VN knows."),
        },
        Phase::Aborted => {
            format!(
                "Called off {}; {to} did not get {vm}.",
                last(Step::Aborted).unwrap_or("for no known reason")
            )
        }
        Phase::Failed => {
            format!(
                "It failed {}; {to} did not get {vm}.",
                last(Step::Failed).unwrap_or("for no known reason")
            )
        }
        Phase::Stopped if r.mode() == v1::MoveMode::Warm => {
            format!("{vm} is shut down at {from}; its mirror at the host of {to} is started next.")
        }
        Phase::Stopped => format!("{vm} is shut down at {from}; its manager packages its state next."),
        Phase::Packaged => {
            format!("{vm}'s state is packaged; its manager sends it to the host of {to} next.")
        }
        Phase::Sent => format!("{vm}'s state is at the host of {to}, which instantiates it next."),
        Phase::Instantiated => {
            format!("{vm} is instantiated at the host of {to}; its start there ends the move.")
        }
        Phase::Preparing => {
            let said = |nve: &str| r.steps.iter().any(|s| s.what() == Step::Prepared && s.nve == nve);
            let missing: Vec<&str> =
                [from, to].into_iter().map(String::as_str).filter(|n| !said(n)).collect();
            let are = if missing.len() == 1 { "is" } else { "are" };
            format!("{vm} is still at {from}; waits until {} {are} prepared.", missing.join(" and "))
        }
        Phase::Prepared if r.mode() != v1::MoveMode::Hot => {
            format!("Both NVEs are prepared; {vm} still runs at {from}, and is to be shut down there next.")
        }
        Phase::Prepared => format!("Both NVEs are prepared; {vm} still runs at {from}."),
        Phase::Paused => {
            format!("{vm} is paused at {from}, which holds its packets; waits for the claim of {to}.")
        }
        Phase::Granted => format!("{to} has {vm}; some NVEs of its VN have not acknowledged it yet."),
        Phase::Unspecified => "The NVA does not say how it stands.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(nve: &str, what: Step, note: &str) -> v1::MoveStep {
        v1::MoveStep { at_us: 1, nve: nve.into(), what: what.into(), note: note.into() }
    }

    fn record(phase: Phase, steps: Vec<v1::MoveStep>) -> v1::MoveRecord {
        let (vm, from, to) = ("web1".into(), "a".into(), "b".into());
        v1::MoveRecord { vm, from, to, phase: phase.into(), steps, ..v1::MoveRecord::default() }
    }

    #[test]
    fn r75_an_ended_move_says_how_and_why() {
        let told = explain(&record(Phase::Done, vec![step("", Step::Done, "")]));
        assert_eq!(told, ["web1 was moved to b, and every connected NVE of its VN knows."]);
        let late = "without the acknowledgement of c";
        let told = explain(&record(Phase::Done, vec![step("", Step::Done, late)]));
        assert_eq!(told, ["web1 was moved to b; the move ended without the acknowledgement of c."]);
        let why = "while the VM was paused at a: called off by the operator";
        let told = explain(&record(Phase::Aborted, vec![step("", Step::Aborted, why)]));
        assert_eq!(told, [format!("Called off {why}; b did not get web1.")]);
    }

    #[test]
    fn r75_an_unfinished_move_says_what_it_waits_for() {
        let told = explain(&record(Phase::Preparing, vec![step("a", Step::Prepared, "")]));
        assert_eq!(told, ["web1 is still at a; waits until b is prepared."]);
        let told = explain(&record(Phase::Preparing, vec![]));
        assert_eq!(told, ["web1 is still at a; waits until a and b are prepared."]);
    }

    #[test]
    fn r21_r22_a_claim_that_nobody_ordered_says_who_was_asked_and_what_came_of_it() {
        let claimed = step("b", Step::Claimed, "by its first frame");
        let asked = step("", Step::Asked, "NVE a, whether it still runs there");
        let alive = step("a", Step::Answered, "it runs here: it answered");
        let text = "VM web1 is at NVE a, and it runs there";
        let steps = vec![claimed.clone(), asked.clone(), alive, step("b", Step::Denied, text)];
        assert_eq!(
            explain(&unplanned(Phase::Failed, steps)),
            [
                "Nobody ordered it: b claimed web1 (by its first frame), which was at a.",
                "The NVA asked a, which said that it runs here: it answered.",
                "The claim was refused: VM web1 is at NVE a, and it runs there.",
            ]
        );
        let often = "it moved 5 times within 180 s without being ordered to; `godwitctl vm clear web1` lets it \
            move again";
        let steps = vec![
            claimed,
            asked,
            step("", Step::Granted, "version 1.9: NVE a is away"),
            step("", Step::Frozen, often),
        ];
        assert_eq!(
            explain(&unplanned(Phase::Done, steps)),
            [
                "Nobody ordered it: b claimed web1 (by its first frame), which was at a.".to_owned(),
                "The NVA asked a, which had not answered when the claim was decided.".into(),
                "b got web1, and every connected NVE of its VN knows.".into(),
                format!("web1 is frozen at b: {often}."),
            ]
        );
    }

    fn unplanned(phase: Phase, steps: Vec<v1::MoveStep>) -> v1::MoveRecord {
        v1::MoveRecord { origin: v1::MoveOrigin::Unplanned.into(), ..record(phase, steps) }
    }

    /// The steps that the NVA keeps of a claim that gave way to a second one: the owner may well answer later, and
    /// what it says is in the second one's record.
    #[test]
    fn r21_a_claim_refused_before_the_owner_answered_says_so() {
        let why = "NVE c claims VM 100/02:00:00:00:00:01 too, and goes before";
        let steps = vec![
            step("b", Step::Claimed, "by its first frame"),
            step("", Step::Asked, "NVE a, whether it still runs there"),
            step("", Step::Denied, why),
        ];
        assert_eq!(
            explain(&unplanned(Phase::Failed, steps)),
            [
                "Nobody ordered it: b claimed web1 (by its first frame), which was at a.".to_owned(),
                "The NVA asked a, which had not answered when the claim was decided.".into(),
                format!("The claim was refused: {why}."),
            ]
        );
    }

    #[test]
    fn r49_a_move_whose_vm_was_detached_does_not_say_it_went_on() {
        let gone = "the VM was detached, version 1.9, before c had acknowledged";
        let steps = || vec![step("", Step::Overtaken, gone), step("", Step::Done, "")];
        let told = explain(&record(Phase::Done, steps()));
        assert_eq!(told, ["web1 was moved to b.".to_owned(), format!("It was overtaken: {gone}.")]);
        let told = explain(&unplanned(Phase::Done, steps()));
        assert_eq!(told[1..], ["b got web1.".to_owned(), format!("It was overtaken: {gone}.")]);
    }

    #[test]
    fn r54_a_move_says_whether_the_connections_of_its_vm_are_paused() {
        let held = "frames for the VM are held, for 60 s at most";
        let mut steps = vec![step("", Step::ConnectionsPaused, held)];
        let told = explain(&record(Phase::Done, steps.clone()));
        assert_eq!(
            told[1..],
            [format!("Its connections are paused: {held}; `godwitctl vm resume web1` lets them go on.")]
        );
        steps.push(step("", Step::ConnectionsResumed, "by order"));
        let told = explain(&record(Phase::Done, steps));
        assert_eq!(told[1..], ["Its connections were paused and go on: by order."]);
    }

    #[test]
    fn r75_what_came_between_is_told() {
        let steps = vec![
            step("c", Step::Denied, "VM web1 is at NVE a"),
            step("", Step::Restarted, "the NVA restarted: epoch 2"),
            step("", Step::Overtaken, "move n took the VM on to c"),
        ];
        let told = explain(&record(Phase::Done, steps));
        assert_eq!(
            told,
            [
                "web1 was moved to b.",
                "It was overtaken: move n took the VM on to c.",
                "The claim of c was refused: VM web1 is at NVE a.",
                "The NVA restarted meanwhile; the move went on from what it had on its disk.",
            ]
        );
    }
}
