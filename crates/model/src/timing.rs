//! Times that NVE and NVA must agree on; the defaults of both sides are taken from here.

/// Life of an answer to a query, in milliseconds (R40).
pub const POS_LIFE_MS: u64 = 30_000;
/// A query is repeated after so many milliseconds (R34).
pub const QRY_TIMEOUT_MS: u64 = 100;
/// So many repetitions of a query (R34).
pub const QRY_RETRIES: u32 = 3;
/// How long others wait for the old NVE to know first, in milliseconds.
pub const UPD_DELAY_MS: u64 = 50;
/// An unacknowledged update is said again after so many milliseconds (R38).
pub const UPD_TIMEOUT_MS: u64 = 100;
/// How often it is said again (R38).
pub const UPD_RETRIES: u8 = 3;
/// Life of a forward entry, in milliseconds (R43); the record of a pause is kept for as long (R54).
pub const FWD_TIMER_MS: u64 = 60_000;
/// How often a forward entry is extended at most (R43).
pub const FWD_EXTENSIONS: u8 = 10;
/// A move without its grant ends so many milliseconds after the last sign that it goes on (R49).
pub const MOVE_PATIENCE_MS: u64 = 300_000;
/// It ends so many milliseconds after its VM's pause, whatever signs there are (R49).
pub const PAUSE_LIMIT_MS: u64 = 300_000;

/// The shortest life of a forward entry that outlives what others may still believe, in milliseconds
/// (R43): an old answer's life, the question that renews it, and the updates that correct it.
pub const fn min_fwd_timer_ms() -> u64 {
    let query = QRY_TIMEOUT_MS * (QRY_RETRIES as u64 + 1);
    let update = UPD_DELAY_MS + UPD_TIMEOUT_MS * (UPD_RETRIES as u64 + 1);
    POS_LIFE_MS + query + update
}

#[cfg(test)]
mod tests {
    #[test]
    fn r43_the_least_life_of_a_forward_entry_covers_every_window() {
        assert_eq!(super::min_fwd_timer_ms(), 30_000 + 400 + 450);
    }
}
