//! See `reservegrid_fuzz::handshake`.
#![cfg_attr(feature = "libfuzzer", no_main)]

reservegrid_fuzz::target!(handshake);
