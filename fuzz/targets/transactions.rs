//! See `reservegrid_fuzz::transactions`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(transactions);
