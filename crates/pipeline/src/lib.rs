//! Pure packet processing: burst, tables and time in, verdicts out.

pub mod packet;
