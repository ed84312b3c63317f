// Tries what only a toolkit with the real static libraries can do: a kernel that launches a kernel is compiled and
// linked with the device's run-time library, and the host's comes in statically. Needs no GPU; with the argument `gpu`
// it is launched, and what it leaves is compared.
#include <cstdio>
#include <cstring>

__global__ void child(float* x) { x[threadIdx.x] *= 2.0f; }

__global__ void parent(float* x, int n) {
  if (threadIdx.x == 0) child<<<1, n>>>(x);
}

static int on_a_gpu() {
  constexpr int n = 32;
  float host[n], *x = nullptr;
  for (int i = 0; i < n; ++i) host[i] = static_cast<float>(i);
  int code = cudaMalloc(reinterpret_cast<void**>(&x), sizeof host);
  if (code == 0) code = cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice);
  if (code == 0) parent<<<1, 1>>>(x, n);
  if (code == 0) code = cudaGetLastError();
  if (code == 0) code = cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost);
  if (code != 0) {
    std::fprintf(stderr, "error: CUDA says %d\n", code);
    return 1;
  }
  for (int i = 0; i < n; ++i) {
    if (host[i] == 2.0f * i) continue;
    std::fprintf(stderr, "error: the inner kernel gave %g, not %g\n", host[i], 2.0f * i);
    return 1;
  }
  std::printf("{\"right\": [\"kernel from kernel\"]}\n");
  return 0;
}

int main(int argc, char** argv) {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  std::printf("{\"runtime\": \"%d.%d\"}\n", runtime / 1000, runtime % 1000 / 10);
  if (runtime == 0) return 1;
  return argc > 1 && std::strcmp(argv[1], "gpu") == 0 ? on_a_gpu() : 0;
}
