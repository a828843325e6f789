//! Encodes the golden pack with query_encoder.onnx and compares each vector with Python's, to the last bit.
//!
//!     ORT_DYLIB_PATH=libonnxruntime.so cargo run --release -- query_encoder.onnx PACK [THREADS]
//!
//! `Encoder` is the part to copy. Dropping it frees the model.

use std::{env, error::Error, fs, path::Path, process, time::Instant};

use ort::{inputs, session::Session, value::Tensor};

/// Turns texts into unit vectors in the teacher's space.
struct Encoder {
    session: Session,
}

impl Encoder {
    /// Loads a fused file. `threads` is how many processor threads one call may use.
    fn open(model: &Path, threads: usize) -> ort::Result<Self> {
        // From 1.29 on, onnxruntime reports to its maker, unless this is set before the library is loaded.
        env::set_var("ORT_DISABLE_TELEMETRY", "1");
        ort::init().with_telemetry(false).commit();
        let session =
            Session::builder()?.with_intra_threads(threads)?.with_inter_threads(1)?.commit_from_file(model)?;
        Ok(Self { session })
    }

    /// Returns a vector per text. A text's vector does not depend on the others.
    fn encode<T: AsRef<str>>(&mut self, texts: &[T]) -> ort::Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        // Strings pass through C, where U+0000 is an error. The tokenizer drops it and U+FFFD alike.
        let exact: Vec<String> = texts.iter().map(|text| text.as_ref().replace('\0', "\u{fffd}")).collect();
        let input = Tensor::from_string_array(([exact.len()], exact.as_slice()))?;
        let outputs = self.session.run(inputs!["text" => input])?;
        let (_, numbers) = outputs["embedding"].try_extract_tensor::<f32>()?;
        Ok(numbers.chunks(numbers.len() / texts.len()).map(<[f32]>::to_vec).collect())
    }
}

const BATCH: usize = 32;

fn main() {
    match run() {
        Ok(true) => {}
        Ok(false) => process::exit(1),
        Err(error) => {
            eprintln!("encode: {error}");
            process::exit(2);
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, model, pack, rest @ ..] = arguments.as_slice() else {
        return Err("usage: encode query_encoder.onnx PACK [THREADS]".into());
    };
    let threads = rest.first().map_or(Ok(1), |threads| threads.parse())?;
    let (texts, expected) = read_pack(Path::new(pack))?;
    let mut encoder = Encoder::open(Path::new(model), threads)?;

    let mut equal = vec![true; texts.len()];
    let mut times = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let start = Instant::now();
        let vectors = encoder.encode(&[text])?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        equal[i] &= same(&vectors[0], &expected[i]);
    }
    for (batch, part) in texts.chunks(BATCH).enumerate() {
        for (i, vector) in encoder.encode(part)?.iter().enumerate() {
            equal[batch * BATCH + i] &= same(vector, &expected[batch * BATCH + i]);
        }
    }

    let count = equal.iter().filter(|is| **is).count();
    times.sort_by(f64::total_cmp);
    println!(r#"{{"texts": {}, "equal": {count}, "p50_ms": {:.3}}}"#, texts.len(), times[times.len() / 2]);
    Ok(count == texts.len())
}

fn same(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Reads texts.bin (a count, then each text's length and UTF-8) and vectors.bin (float32); little endian.
fn read_pack(folder: &Path) -> Result<(Vec<String>, Vec<Vec<f32>>), Box<dyn Error>> {
    let data = fs::read(folder.join("texts.bin"))?;
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    let mut texts = Vec::new();
    let mut at = 4;
    for _ in 0..number(0) {
        let end = at + 4 + number(at);
        texts.push(String::from_utf8(data[at + 4..end].to_vec())?);
        at = end;
    }
    let data = fs::read(folder.join("vectors.bin"))?;
    let numbers: Vec<f32> = data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let vectors = numbers.chunks(numbers.len() / texts.len()).map(<[f32]>::to_vec).collect();
    Ok((texts, vectors))
}
