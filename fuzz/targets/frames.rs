//! See `reservegrid_fuzz::frames`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(frames);
