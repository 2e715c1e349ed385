//! Frames are counted alike however their bytes arrive, and as a reader counts who has them all.

use portcullis::web::raw_frames::RawFrames;

pub(crate) fn holds(data: &[u8]) {
    let Some((&size, frames)) = data.split_first() else { return };
    let at_once = RawFrames::default().watch(frames);
    let mut piecemeal = RawFrames::default();
    let count: u32 = frames.chunks(usize::from(size).max(1)).map(|piece| piecemeal.watch(piece)).sum();
    assert_eq!(count, at_once);
    assert_eq!(count, counted(frames.get(24..).unwrap_or_default()));
}

fn counted(mut frames: &[u8]) -> u32 {
    let mut idle = 0;
    while let Some(([high, middle, low, kind, _, _, _, _, _], rest)) = frames.split_first_chunk::<9>() {
        idle += u32::from(matches!(kind, 2 | 4 | 6 | 8 | 10..));
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        frames = rest.get(length..).unwrap_or_default();
    }
    idle
}
