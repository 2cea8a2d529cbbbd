//! See `reservegrid_fuzz::session`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(session);
