// Tries a CUDA toolkit: cub and a kernel are compiled, cuBLAS, cuDNN and, with TRIAL_NCCL, NCCL are linked, and
// each says its version. Needs no GPU. With the argument `gpu` each also computes something whose result is known.
#include <cstdio>
#include <cstring>
#include <vector>

#include <cub/cub.cuh>
#include <cublas_v2.h>
#include <cudnn.h>
#ifdef TRIAL_NCCL
#include <nccl.h>
#endif

// Every library here says success by 0.
#define MUST(call)                                                                                  \
  do {                                                                                              \
    int code = static_cast<int>(call);                                                              \
    if (code != 0) {                                                                                \
      std::fprintf(stderr, "error: %s failed with code %d (line %d)\n", #call, code, __LINE__);     \
      return 1;                                                                                     \
    }                                                                                               \
  } while (0)

__global__ void scale(float* x, int n, float by) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= by;
}

static int differs(const char* what, const float* device, size_t n, float wanted) {
  std::vector<float> host(n);
  MUST(cudaMemcpy(host.data(), device, n * sizeof(float), cudaMemcpyDeviceToHost));
  for (float found : host) {
    if (found == wanted) continue;
    std::fprintf(stderr, "error: %s gave %g, not %g\n", what, found, wanted);
    return 1;
  }
  return 0;
}

static int on_a_gpu() {
  constexpr int side = 64, n = side * side;
  cudaDeviceProp about;
  MUST(cudaGetDeviceProperties(&about, 0));
  std::vector<float> ones(n, 1.0f);
  float *x = nullptr, *y = nullptr, *z = nullptr;
  for (float** p : {&x, &y, &z}) MUST(cudaMalloc(reinterpret_cast<void**>(p), n * sizeof(float)));
  MUST(cudaMemcpy(x, ones.data(), n * sizeof(float), cudaMemcpyHostToDevice));

  scale<<<(n + 255) / 256, 256>>>(x, n, 2.0f);
  MUST(cudaGetLastError());
  if (differs("a kernel", x, n, 2.0f)) return 1;

  size_t bytes = 0;
  void* scratch = nullptr;
  MUST(cub::DeviceReduce::Sum(nullptr, bytes, x, y, n));
  MUST(cudaMalloc(&scratch, bytes));
  MUST(cub::DeviceReduce::Sum(scratch, bytes, x, y, n));
  if (differs("cub", y, 1, 2.0f * n)) return 1;

  const float one = 1.0f, none = 0.0f;
  cublasHandle_t blas;
  MUST(cublasCreate(&blas));
  MUST(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, side, side, side, &one, x, side, x, side, &none, y, side));
  if (differs("cuBLAS", y, n, 4.0f * side)) return 1;

  // A convolution with one weight, 2: its input, twice.
  cudnnHandle_t dnn;
  cudnnTensorDescriptor_t image;
  cudnnFilterDescriptor_t filter;
  cudnnConvolutionDescriptor_t convolution;
  const auto algorithm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
  MUST(cudnnCreate(&dnn));
  MUST(cudnnCreateTensorDescriptor(&image));
  MUST(cudnnSetTensor4dDescriptor(image, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, side, side));
  MUST(cudnnCreateFilterDescriptor(&filter));
  MUST(cudnnSetFilter4dDescriptor(filter, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, 1, 1, 1, 1));
  MUST(cudnnCreateConvolutionDescriptor(&convolution));
  MUST(cudnnSetConvolution2dDescriptor(convolution, 0, 0, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
  MUST(cudnnGetConvolutionForwardWorkspaceSize(dnn, image, filter, convolution, image, algorithm, &bytes));
  void* room = nullptr;
  MUST(cudaMalloc(&room, bytes + 1));
  MUST(cudnnConvolutionForward(
      dnn, &one, image, x, filter, x, convolution, algorithm, room, bytes, &none, image, z));
  if (differs("cuDNN", z, n, 4.0f)) return 1;

#ifdef TRIAL_NCCL
  ncclComm_t alone;
  int device = 0;
  MUST(ncclCommInitAll(&alone, 1, &device));
  MUST(ncclAllReduce(z, y, n, ncclFloat, ncclSum, alone, nullptr));
  MUST(cudaDeviceSynchronize());
  if (differs("NCCL", y, n, 4.0f)) return 1;
  MUST(ncclCommDestroy(alone));
  const char* nccl = ", \"nccl\"";
#else
  const char* nccl = "";
#endif
  MUST(cudaDeviceSynchronize());
  std::printf(
      "{\"gpu\": \"%s\", \"capability\": \"%d.%d\", \"right\": [\"kernel\", \"cub\", \"cublas\", \"cudnn\"%s]}\n",
      about.name, about.major, about.minor, nccl);
  return 0;
}

int main(int argc, char** argv) {
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
  if (nccl == 0) return 1;
#else
  std::printf("\"nccl\": null}\n");
#endif
  if (runtime == 0) return 1;
  return argc > 1 && std::strcmp(argv[1], "gpu") == 0 ? on_a_gpu() : 0;
}
