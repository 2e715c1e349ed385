//! Frames are counted and marked alike however their bytes arrive, and counted as a reader counts who has them all. A mark is
//! the only change.

use portcullis::web::raw_frames::RawFrames;

pub(crate) fn holds(data: &[u8]) {
    let Some((&size, frames)) = data.split_first() else { return };
    let mut at_once = frames.to_vec();
    let whole = RawFrames::default().watch(&mut at_once);
    let (mut piecemeal, mut watch) = (frames.to_vec(), RawFrames::default());
    let idle: Result<Vec<u32>, _> =
        piecemeal.chunks_mut(usize::from(size).max(1)).map(|piece| watch.watch(piece)).collect();
    assert_eq!(idle.map(|idle| idle.iter().sum()), whole);
    assert_eq!(piecemeal, at_once);
    let marks = frames.iter().zip(&at_once).filter(|(before, after)| before != after);
    for (before, after) in marks {
        // The last bit of a code, or `>` for `#`.
        assert!((before ^ after).is_power_of_two() && after > before || (*before, *after) == (b'#', b'>'));
    }
    if let Ok(whole) = whole {
        assert_eq!(whole, counted(frames.get(24..).unwrap_or_default()));
    }
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
