//! A move's history in a few sentences: how it stands or ended, why, and what came between.

use godwit_nva_api::v1;
use godwit_nva_api::v1::MovePhase as Phase;
use godwit_nva_api::v1::MoveStepKind as Step;

/// What the record says, one sentence each; the first says how the move stands.
pub fn explain(r: &v1::MoveRecord) -> Vec<String> {
    let mut told = vec![standing(r)];
    let steps = |kind| r.steps.iter().filter(move |s| s.what() == kind);
    told.extend(steps(Step::Overtaken).map(|s| format!("It was overtaken: {}.", s.note)));
    told.extend(steps(Step::Denied).map(|s| format!("The claim of {} was refused: {}.", s.nve, s.note)));
    match steps(Step::Restarted).count() {
        0 => {}
        1 => told.push("The NVA restarted meanwhile; the move went on from what it had on its disk.".into()),
        n => told.push(format!(
            "The NVA restarted {n} times meanwhile; the move went on from what it had on its disk."
        )),
    }
    let dropped: u64 = r.counts.iter().filter_map(|c| c.counts).map(|c| c.dropped).sum();
    if dropped > 0 {
        told.push(format!("{dropped} held packets were dropped."));
    }
    told
}

fn standing(r: &v1::MoveRecord) -> String {
    let (vm, from, to) = (&r.vm, &r.from, &r.to);
    let last = |kind| r.steps.iter().rev().find(|s| s.what() == kind).map(|s| s.note.as_str());
    match r.phase() {
        Phase::Done => match last(Step::Done) {
            Some(note) if !note.is_empty() => format!("{vm} was moved to {to}; the move ended {note}."),
            _ if last(Step::Overtaken).is_some() => {
                format!("{vm} was moved to {to}, and went on from there.")
            }
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
        Phase::Preparing => {
            let said = |nve: &str| r.steps.iter().any(|s| s.what() == Step::Prepared && s.nve == nve);
            let missing: Vec<&str> =
                [from, to].into_iter().map(String::as_str).filter(|n| !said(n)).collect();
            let are = if missing.len() == 1 { "is" } else { "are" };
            format!("{vm} is still at {from}; waits until {} {are} prepared.", missing.join(" and "))
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
                "web1 was moved to b, and went on from there.",
                "It was overtaken: move n took the VM on to c.",
                "The claim of c was refused: VM web1 is at NVE a.",
                "The NVA restarted meanwhile; the move went on from what it had on its disk.",
            ]
        );
    }
}
