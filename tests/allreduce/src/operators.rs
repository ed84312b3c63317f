//! Single-node operator times: a slow BLAS or a missing kernel shows up here.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Device, Kind, Tensor, no_grad};

use crate::failure::Result;
use crate::pace;

/// Times of one operator.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The operator.
    pub name: &'static str,
    /// Shapes, for people.
    pub shape: &'static str,
    /// Data type.
    pub r#type: &'static str,
    /// Seconds of one call, a batch each.
    pub seconds: Vec<f64>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

type Call = Box<dyn Fn() -> std::result::Result<Tensor, tch::TchError>>;

/// How long each operator is measured.
pub struct Effort {
    /// Before the first batch.
    pub warmup: Duration,
    /// Of one batch.
    pub batch: Duration,
    /// Batches.
    pub batches: usize,
}

/// Measures all operators on `device`.
pub fn run(device: Device, effort: &Effort, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
    tch::manual_seed(1);
    let mut rows = Vec::new();
    for (name, shape, kind, make) in CASES {
        let mut row = Row { name, shape, r#type: kind_name(*kind), seconds: Vec::new(), error: None };
        no_grad(|| {
            let call = make(*kind, device);
            match measure(&call, device, effort) {
                Ok(seconds) => row.seconds = seconds,
                Err(e) => row.error = Some(e.to_string()),
            }
        });
        each(&row);
        rows.push(row);
    }
    Ok(rows)
}

fn measure(call: &Call, device: Device, effort: &Effort) -> Result<Vec<f64>> {
    let repeat = |n: u64| -> Result<f64> {
        let started = Instant::now();
        for _ in 0..n {
            drop(call()?);
        }
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        Ok(started.elapsed().as_secs_f64())
    };
    let n = pace::repetitions(effort.batch, pace::warm_up(effort.warmup, repeat)?);
    (0..effort.batches).map(|_| Ok(repeat(n)? / n as f64)).collect()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Int64 => "int64",
        _ => "?",
    }
}

fn random(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::randn(shape, (Kind::Float, device)).to_kind(kind)
}

type Case = (&'static str, &'static str, Kind, fn(Kind, Device) -> Call);

fn matmul_large(kind: Kind, device: Device) -> Call {
    let (a, b) = (random(&[768, 768], kind, device), random(&[768, 768], kind, device));
    Box::new(move || a.f_matmul(&b))
}

fn matmul_small(kind: Kind, device: Device) -> Call {
    let (a, b) = (random(&[256, 256], kind, device), random(&[256, 256], kind, device));
    Box::new(move || a.f_matmul(&b))
}

fn batched_matmul(kind: Kind, device: Device) -> Call {
    let (a, b) = (random(&[32, 128, 64], kind, device), random(&[32, 64, 128], kind, device));
    Box::new(move || a.f_bmm(&b))
}

fn linear(kind: Kind, device: Device) -> Call {
    let (x, w, b) =
        (random(&[128, 512], kind, device), random(&[512, 512], kind, device), random(&[512], kind, device));
    Box::new(move || x.f_linear(&w, Some(&b)))
}

fn conv2d(kind: Kind, device: Device) -> Call {
    let (x, w) = (random(&[8, 32, 56, 56], kind, device), random(&[32, 32, 3, 3], kind, device));
    Box::new(move || x.f_conv2d(&w, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1))
}

fn conv1d(kind: Kind, device: Device) -> Call {
    let (x, w) = (random(&[8, 64, 2048], kind, device), random(&[64, 64, 3], kind, device));
    Box::new(move || x.f_conv1d(&w, None::<Tensor>, [1], [1], [1], 1))
}

fn softmax(kind: Kind, device: Device) -> Call {
    let x = random(&[1024, 1024], kind, device);
    Box::new(move || x.f_softmax(-1, None::<Kind>))
}

fn layer_norm(kind: Kind, device: Device) -> Call {
    let (x, w, b) = (random(&[1024, 1024], kind, device), random(&[1024], kind, device), random(&[1024], kind, device));
    Box::new(move || x.f_layer_norm([1024], Some(&w), Some(&b), 1e-5, false))
}

fn gelu(kind: Kind, device: Device) -> Call {
    let x = random(&[1 << 20], kind, device);
    Box::new(move || x.f_gelu("none"))
}

fn exp(kind: Kind, device: Device) -> Call {
    let x = random(&[1 << 20], kind, device);
    Box::new(move || x.f_exp())
}

fn add(kind: Kind, device: Device) -> Call {
    let (a, b) = (random(&[1 << 20], kind, device), random(&[1 << 20], kind, device));
    Box::new(move || a.f_add(&b))
}

fn sum(kind: Kind, device: Device) -> Call {
    let x = random(&[1 << 20], kind, device);
    Box::new(move || x.f_sum(None::<Kind>))
}

fn attention(kind: Kind, device: Device) -> Call {
    let [q, k, v] = [0; 3].map(|_| random(&[4, 8, 128, 64], kind, device));
    Box::new(move || Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false))
}

fn max_pool(kind: Kind, device: Device) -> Call {
    let x = random(&[8, 32, 56, 56], kind, device);
    Box::new(move || x.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false))
}

fn sort(kind: Kind, device: Device) -> Call {
    let x = random(&[1 << 18], kind, device);
    Box::new(move || Ok(x.f_sort(0, false)?.0))
}

fn embedding(kind: Kind, device: Device) -> Call {
    let table = random(&[10_000, 256], kind, device);
    let index = Tensor::randint(10_000, [4096], (Kind::Int64, device));
    Box::new(move || Tensor::f_embedding(&table, &index, -1, false, false))
}

/// FBGEMM has kernels for it, where a torch has FBGEMM.
fn embedding_bag(kind: Kind, device: Device) -> Call {
    let table = random(&[10_000, 256], kind, device);
    let index = Tensor::randint(10_000, [4096], (Kind::Int64, device));
    let offsets = Tensor::arange_start_step(0_i64, 4096, 32, (Kind::Int64, device));
    Box::new(move || {
        let bags = Tensor::f_embedding_bag(&table, &index, &offsets, false, 0, false, None::<Tensor>, false)?;
        Ok(bags.0)
    })
}

fn fft(kind: Kind, device: Device) -> Call {
    let x = random(&[256, 1024], kind, device);
    Box::new(move || x.f_fft_rfft(None, -1, "backward"))
}

fn solve(kind: Kind, device: Device) -> Call {
    let (a, b) = (random(&[256, 256], kind, device), random(&[256, 16], kind, device));
    Box::new(move || Tensor::f_linalg_solve(&a, &b, true))
}

fn gradient(kind: Kind, device: Device) -> Call {
    let (x, w) = (random(&[128, 512], kind, device), random(&[512, 512], kind, device).set_requires_grad(true));
    Box::new(move || {
        tch::with_grad(|| {
            let mut w = w.shallow_clone();
            w.zero_grad();
            x.f_matmul(&w)?.f_tanh()?.f_sum(None::<Kind>)?.f_backward()?;
            Ok(w.grad())
        })
    })
}

const CASES: &[Case] = &[
    ("matmul", "768x768 @ 768x768", Kind::Float, matmul_large),
    ("matmul", "768x768 @ 768x768", Kind::Double, matmul_large),
    ("matmul", "256x256 @ 256x256", Kind::BFloat16, matmul_small),
    ("matmul", "256x256 @ 256x256", Kind::Half, matmul_small),
    ("bmm", "32x128x64 @ 32x64x128", Kind::Float, batched_matmul),
    ("linear", "128x512, 512 out", Kind::Float, linear),
    ("linear", "128x512, 512 out", Kind::BFloat16, linear),
    ("conv2d", "8x32x56x56, 3x3", Kind::Float, conv2d),
    ("conv2d", "8x32x56x56, 3x3", Kind::BFloat16, conv2d),
    ("conv1d", "8x64x2048, 3", Kind::Float, conv1d),
    ("softmax", "1024x1024", Kind::Float, softmax),
    ("softmax", "1024x1024", Kind::BFloat16, softmax),
    ("layer_norm", "1024x1024", Kind::Float, layer_norm),
    ("layer_norm", "1024x1024", Kind::BFloat16, layer_norm),
    ("attention", "4x8x128x64", Kind::Float, attention),
    ("attention", "4x8x128x64", Kind::BFloat16, attention),
    ("gelu", "1M", Kind::Float, gelu),
    ("exp", "1M", Kind::Float, exp),
    ("add", "1M", Kind::Float, add),
    ("add", "1M", Kind::Half, add),
    ("add", "1M", Kind::BFloat16, add),
    ("sum", "1M", Kind::Float, sum),
    ("sum", "1M", Kind::BFloat16, sum),
    ("max_pool2d", "8x32x56x56, 2x2", Kind::Float, max_pool),
    ("sort", "256K", Kind::Float, sort),
    ("embedding", "10000x256, 4096 rows", Kind::Float, embedding),
    ("embedding_bag", "10000x256, 128 sums of 32 rows", Kind::Float, embedding_bag),
    ("rfft", "256x1024", Kind::Float, fft),
    ("solve", "256x256, 16 right-hand sides", Kind::Double, solve),
    ("gradient", "tanh of 128x512 @ 512x512", Kind::Float, gradient),
];
