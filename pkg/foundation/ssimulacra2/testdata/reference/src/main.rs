// Prints "NAME SCORE" for each directory NAME of the one that is given, which holds original.ppm and distorted.ppm.
use ssimulacra2::{compute_frame_ssimulacra2, ColorPrimaries, Rgb, TransferCharacteristic};
use std::{env, fs, path::Path};

fn read(path: &Path) -> Rgb {
    let file = fs::read(path).unwrap();
    let head: Vec<&[u8]> = file.splitn(4, |b| *b == b'\n').collect();
    assert_eq!(head[0], b"P6");
    let size = std::str::from_utf8(head[1]).unwrap();
    let (width, height) = size.split_once(' ').unwrap();
    let pixels = head[3]
        .chunks_exact(3)
        .map(|p| [p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0))
        .collect();
    let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
    Rgb::new(pixels, width, height, TransferCharacteristic::SRGB, ColorPrimaries::BT709).unwrap()
}

fn main() {
    let mut pairs: Vec<_> = fs::read_dir(env::args().nth(1).unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    pairs.sort();
    for pair in pairs {
        let score =
            compute_frame_ssimulacra2(read(&pair.join("original.ppm")), read(&pair.join("distorted.ppm"))).unwrap();
        println!("{} {:.6}", pair.file_name().unwrap().to_str().unwrap(), score);
    }
}
