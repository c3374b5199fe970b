//! stompjs against the real binary.
