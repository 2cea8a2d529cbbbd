//! See `reservegrid_fuzz::provider`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(provider);
