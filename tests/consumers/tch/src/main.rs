//! Tensors through tch, against the libtorch bundle.

use tch::{Kind, Tensor};

fn main() {
    let a = Tensor::ones([3, 4], (Kind::Float, tch::Device::Cpu));
    let b = Tensor::ones([4, 2], (Kind::Float, tch::Device::Cpu));
    let sum = a.matmul(&b).sum(Kind::Float).double_value(&[]);
    println!("{{\"sum\": {sum}, \"threads\": {}}}", tch::get_num_threads());
    assert_eq!(sum, 24.0);
}
