//! The all-reduce benchmark: sizes by factor, data types, sums in and out of place, each size
//! checked against the sum that is known.
//!
//! c10d reduces in place; "out of place" is what its users do: copy, then reduce the copy. Times,
//! `algbw` and `busbw` are those of nccl-tests (`doc/PERFORMANCE.md` there): the mean over the ranks,
//! `algbw = bytes / time`, `busbw = algbw * 2 (n - 1) / n`.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::c10d::Group;
use crate::failure::{Failure, Result};
use crate::pace;

/// A data type of the benchmark, under nccl-tests' name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// 32 bits.
    Float,
    /// IEEE 754 binary16.
    Half,
    /// The upper half of a 32-bit float.
    Bfloat16,
}

impl Type {
    fn kind(self) -> Kind {
        match self {
            Self::Float => Kind::Float,
            Self::Half => Kind::Half,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Float => 4,
            Self::Half | Self::Bfloat16 => 2,
        }
    }

    /// nccl-tests' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Half => "half",
            Self::Bfloat16 => "bfloat16",
        }
    }

    /// Whole numbers up to this one are exact, so a sum that stays below must come out exactly.
    fn exact(self) -> f64 {
        match self {
            Self::Float => 16_777_216.0,
            Self::Half => 2048.0,
            Self::Bfloat16 => 256.0,
        }
    }
}

/// Where the sum is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Into another tensor.
    Out,
    /// Over the input.
    In,
}

/// What is measured.
pub struct Sweep {
    /// Smallest size in bytes.
    pub min: u64,
    /// Largest size in bytes.
    pub max: u64,
    /// From one size to the next.
    pub factor: u64,
    /// Data types.
    pub types: Vec<Type>,
    /// In and out of place.
    pub places: Vec<Place>,
    /// Warm-up of a cell.
    pub warmup: Duration,
    /// Measured time of a cell, split over the batches.
    pub time: Duration,
    /// Batches a cell: each gives one time.
    pub batches: usize,
}

/// One cell of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Bytes of one rank's tensor.
    pub bytes: u64,
    /// Its elements.
    pub count: u64,
    /// Data type.
    pub r#type: Type,
    /// In or out of place.
    pub place: Place,
    /// Seconds of one all-reduce, a batch each, the mean over the ranks.
    pub seconds: Vec<f64>,
    /// All-reduces in a batch.
    pub iterations: u64,
    /// Bytes a second, of the median.
    pub algbw: f64,
    /// The same, scaled to what each link carries.
    pub busbw: f64,
    /// Elements with a wrong sum, over all ranks.
    pub wrong: u64,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One rank's part.
pub struct Bench<'a> {
    /// The group.
    pub group: &'a Group,
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Where its tensors are.
    pub device: Device,
}

/// Elements of the block that fills and checks go by: a multiple of the pattern's period.
const BLOCK: i64 = 3 << 16;

impl Bench<'_> {
    /// Measures every cell; all ranks come out with the same rows.
    pub fn run(&self, sweep: &Sweep, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &r#type in &sweep.types {
            for &place in &sweep.places {
                let mut bytes = sweep.min.max(r#type.bytes());
                while bytes <= sweep.max {
                    let row = self.cell(sweep, r#type, place, bytes)?;
                    let failed = row.error.is_some();
                    each(&row);
                    rows.push(row);
                    if failed {
                        break; // a type that this backend does not take fails in every size
                    }
                    bytes = bytes.saturating_mul(sweep.factor);
                }
            }
        }
        Ok(rows)
    }

    fn cell(&self, sweep: &Sweep, r#type: Type, place: Place, bytes: u64) -> Result<Row> {
        let count = bytes / r#type.bytes();
        let elements = i64::try_from(count).map_err(|_| Failure::misuse(format!("{bytes} bytes are too many")))?;
        let mut row = Row {
            bytes: count * r#type.bytes(),
            count,
            r#type,
            place,
            seconds: Vec::new(),
            iterations: 0,
            algbw: 0.0,
            busbw: 0.0,
            wrong: 0,
            error: None,
        };
        let source = (place == Place::Out).then(|| self.filled(elements, r#type));
        let mut target = self.filled(elements, r#type);
        // The first all-reduce is the one whose result is checked: it meets what a user's first one
        // meets (lazy connections, types that the backend does not take).
        if let Err(e) = self.group.allreduce(&mut target) {
            row.error = Some(e.to_string());
            return Ok(row);
        }
        inject_fault(&mut target, self.rank, row.bytes)?;
        row.wrong = self.sum_over_ranks(self.wrong(&target, r#type) as f64)? as u64;
        let mut once = |n: u64| -> Result<f64> {
            self.group.barrier()?;
            let started = Instant::now();
            for _ in 0..n {
                if let Some(source) = &source {
                    target.copy_(source);
                }
                self.group.allreduce(&mut target)?;
            }
            self.synchronize();
            // All ranks take the same number of iterations, so they must agree on the time.
            Ok(self.sum_over_ranks(started.elapsed().as_secs_f64())? / self.world as f64)
        };
        let each = pace::warm_up(sweep.warmup, &mut once)?;
        row.iterations = pace::repetitions(sweep.time.div_f64(sweep.batches as f64), each);
        for _ in 0..sweep.batches {
            row.seconds.push(once(row.iterations)? / row.iterations as f64);
        }
        let time = median(&row.seconds);
        row.algbw = row.bytes as f64 / time;
        row.busbw = row.algbw * 2.0 * (self.world as f64 - 1.0) / self.world as f64;
        Ok(row)
    }

    /// Element i of rank r is (i + r) mod 3: the sum is known, small, and differs from element to
    /// element and from rank to rank.
    fn filled(&self, elements: i64, r#type: Type) -> Tensor {
        let tensor = Tensor::empty([elements], (r#type.kind(), self.device));
        let shift = (self.rank % 3) as i64;
        let pattern = Tensor::arange_start(shift, shift + BLOCK.min(elements), (Kind::Int64, self.device))
            .remainder(3)
            .to_kind(r#type.kind());
        for start in (0..elements).step_by(BLOCK as usize) {
            let length = BLOCK.min(elements - start);
            tensor.narrow(0, start, length).copy_(&pattern.narrow(0, 0, length));
        }
        tensor
    }

    /// Number of elements that are not the sum over all ranks.
    fn wrong(&self, tensor: &Tensor, r#type: Type) -> i64 {
        let elements = tensor.size1().unwrap_or(0);
        let index = Tensor::arange(BLOCK.min(elements), (Kind::Int64, self.device));
        let mut expected = Tensor::zeros([BLOCK.min(elements)], (Kind::Double, self.device));
        for residue in 0..3.min(self.world) {
            // Ranks of one residue hold the same.
            let ranks = (self.world - residue).div_ceil(3) as f64;
            expected += (&index + residue as i64).remainder(3).to_kind(Kind::Double) * ranks;
        }
        // Sums beyond what the type holds exactly are rounded on the way, once a rank at most.
        let largest = 2.0 * self.world as f64;
        let tolerance = if largest <= r#type.exact() { 0.0 } else { largest * self.world as f64 / r#type.exact() };
        let mut wrong = 0;
        for start in (0..elements).step_by(BLOCK as usize) {
            let length = BLOCK.min(elements - start);
            let got = tensor.narrow(0, start, length).to_kind(Kind::Double);
            // Not `>`: a NaN is wrong as well.
            let right = (got - expected.narrow(0, 0, length)).abs().le(tolerance);
            wrong += length - right.sum(Kind::Int64).int64_value(&[]);
        }
        wrong
    }

    /// Sum of one number over all ranks.
    fn sum_over_ranks(&self, value: f64) -> Result<f64> {
        let mut tensor = Tensor::from_slice(&[value]).to_device(self.device);
        self.group.allreduce(&mut tensor)?;
        Ok(tensor.double_value(&[0]))
    }

    fn synchronize(&self) {
        if let Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
    }
}

/// Test hook: `ALLREDUCE_FAULT=RANK:die` or `RANK:hang`: that rank does so after it has joined.
pub fn fault(rank: usize) {
    let fault = std::env::var("ALLREDUCE_FAULT").unwrap_or_default();
    match fault.split_once(':') {
        Some((at, "die")) if at == rank.to_string() => std::process::abort(),
        Some((at, "hang")) if at == rank.to_string() => std::thread::sleep(Duration::MAX),
        _ => {}
    }
}

/// Test hook: `ALLREDUCE_INJECT=RANK:BYTES:ELEMENT` flips the lowest bit of one element's sum, as
/// broken memory or a broken network would. The check must find it.
fn inject_fault(tensor: &mut Tensor, rank: usize, bytes: u64) -> Result<()> {
    let Ok(text) = std::env::var("ALLREDUCE_INJECT") else { return Ok(()) };
    let parts: Vec<u64> = text.split(':').map_while(|p| p.parse().ok()).collect();
    let [at_rank, at_bytes, element] = parts[..] else {
        return Err(Failure::misuse(format!("ALLREDUCE_INJECT='{text}' is not RANK:BYTES:ELEMENT")));
    };
    let element = i64::try_from(element).unwrap_or(i64::MAX);
    if at_rank == rank as u64 && at_bytes == bytes && element < tensor.size1().unwrap_or(0) {
        let bits = if tensor.kind() == Kind::Float { Kind::Int } else { Kind::Int16 };
        let view = tensor.view_dtype(bits);
        let mut one = view.narrow(0, element, 1);
        let flipped = one.bitwise_xor(1);
        one.copy_(&flipped);
    }
    Ok(())
}

/// Middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
