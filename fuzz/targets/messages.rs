//! See `reservegrid_fuzz::messages`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(messages);
