//! `portcullis demo`: what stands behind the gateway there. The portal knows nothing of the gateway, as a real one would not.

pub mod portal;
