//! The silence of a guest at its peer beside the downtime that QEMU tells.

use super::{MoveLine, Run};

/// What QEMU's downtime and the moves' silences have to do with each other; nothing without QEMU.
pub fn beyond_downtime(runs: &[Run]) -> Option<String> {
    let mut all: Vec<&MoveLine> = runs.iter().flat_map(|r| &r.timeline).filter(|m| m.done).collect();
    all.retain(|m| m.beyond_downtime_ms().is_some());
    let median = |value: fn(&MoveLine) -> Option<f64>| {
        let mut all: Vec<f64> = all.iter().filter_map(|m| value(m)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let downtime = median(|m| m.vm_downtime_ms.map(|d| d as f64))?;
    let (pause, gap) = (median(|m| Some(m.pause_ms))?, median(|m| m.gap_ms)?);
    let (beyond, after) = (median(MoveLine::beyond_downtime_ms)?, median(|m| Some(m.gap_ms? - m.pause_ms))?);
    let values: [fn(&MoveLine) -> Option<f64>; 3] =
        [|m| m.cores_ms, |m| m.beyond_cores_ms, |m| m.beyond_stop_and_cores_ms];
    let cores = match values.map(median) {
        [Some(cores), Some(left), Some(rest)] => format!(
            "\nThis machine's cores cost {cores:.1} ms of that: so long v's processor, which is emulated and \
             translates everything anew,\n\
             ran or waited for a core before p heard of v. The silence is {left:.1} ms longer than the \
             downtime and that together,\n\
             {rest:.1} ms longer than the stop and that."
        ),
        _ => String::new(),
    };
    let parts = match (median(|m| m.frame_gap_ms), median(|m| m.guest_silent_ms)) {
        (Some(frames), Some(own)) => format!(
            "\nOf v's frames of any kind p saw none for {frames:.1} ms, {own:.1} ms of them from v running to \
             the new NVE's hearing of it."
        ),
        _ => String::new(),
    };
    let network = match (median(|m| m.sender_idle_ms), median(|m| m.network_gap_ms)) {
        (Some(idle), Some(network)) => format!(
            "\nBy its own clock, which stands still with it, v sent no probe for {idle:.1} ms of that; stop \
             and idleness taken out, {network:.1} ms\nare left: the network's, and those of v's kernel, which \
             is emulated and has to be translated anew, too."
        ),
        _ => String::new(),
    };
    let work: [fn(&MoveLine) -> Option<f64>; 3] =
        [|m| m.processor_ran_ms, |m| m.processor_waited_ms, |m| m.processor_asleep_ms];
    let work = match work.map(median) {
        [Some(ran), Some(waited), Some(asleep)] => format!(
            "\nFrom v running to that first frame its processor ran for {ran:.1} ms and waited {waited:.1} ms \
             for a core; for {asleep:.1} ms it had nothing to do."
        ),
        _ => String::new(),
    };
    let heard = all.iter().filter(|m| m.switch_gap_ms.is_some()).count();
    let ours = median(|m| m.switch_gap_ms).map_or(String::new(), |ours| {
        format!("\nWhere its NVE heard it by a frame ({heard} times), the frame was at p {ours:.1} ms later.")
    });
    Some(format!(
        "Medians of {} migrations: QEMU's downtime {downtime:.0} ms; v stopped to v running {pause:.1} ms; \
         silence at p\n\
         {gap:.1} ms, which is {beyond:.1} ms more than the downtime and {after:.1} ms more than the \
         stop.{cores}{network}{parts}{work}{ours}",
        all.len()
    ))
}
