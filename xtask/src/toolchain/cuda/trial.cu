// Tries a CUDA toolkit: cub and a kernel are compiled, cuBLAS, cuDNN and, with TRIAL_NCCL, NCCL are linked, and
// each says its version. Needs no GPU.
#include <cstdio>

#include <cub/cub.cuh>
#include <cublas_v2.h>
#include <cudnn.h>
#ifdef TRIAL_NCCL
#include <nccl.h>
#endif

__global__ void scale(float* x, int n, float by) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= by;
}

// Never called without a GPU; compiled and linked all the same.
static void on_a_gpu(float* x, float* sum, int n) {
  size_t bytes = 0;
  cub::DeviceReduce::Sum(nullptr, bytes, x, sum, n);
  void* scratch = nullptr;
  cudaMalloc(&scratch, bytes);
  scale<<<(n + 255) / 256, 256>>>(x, n, 2.0f);
  cub::DeviceReduce::Sum(scratch, bytes, x, sum, n);
  cublasHandle_t handle;
  cublasCreate(&handle);
  cudnnHandle_t dnn;
  cudnnCreate(&dnn);
}

int main(int argc, char**) {
  if (argc > 1) on_a_gpu(nullptr, nullptr, 0);
  [[maybe_unused]] int nccl = 0;
  int runtime = 0, blas[3] = {0, 0, 0};
  cudaRuntimeGetVersion(&runtime);
  for (int i = 0; i < 3; ++i) cublasGetProperty(static_cast<libraryPropertyType>(i), &blas[i]);
  size_t dnn = CUDNN_VERSION;
  std::printf(
      "{\"runtime\": \"%d.%d\", \"cublas\": \"%d.%d.%d\", \"cudnn\": \"%zu.%zu.%zu\", ", runtime / 1000,
      runtime % 1000 / 10, blas[0], blas[1], blas[2], dnn / 10000, dnn % 10000 / 100, dnn % 100);
#ifdef TRIAL_NCCL
  ncclGetVersion(&nccl);
  std::printf("\"nccl\": \"%d.%d.%d\"}\n", nccl / 10000, nccl % 10000 / 100, nccl % 100);
  return runtime == 0 || nccl == 0;
#else
  std::printf("\"nccl\": null}\n");
  return runtime == 0;
#endif
}
