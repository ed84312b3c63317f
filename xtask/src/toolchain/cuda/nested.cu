// Tries what only a toolkit with the real static libraries can do: a kernel that launches a kernel is compiled and
// linked with the device's run-time library, and the host's comes in statically. Needs no GPU.
#include <cstdio>

__global__ void child(float* x) { x[threadIdx.x] *= 2.0f; }

__global__ void parent(float* x, int n) {
  if (threadIdx.x == 0) child<<<1, n>>>(x);
}

int main(int argc, char**) {
  // Never launched without a GPU; compiled and linked all the same.
  if (argc > 1) parent<<<1, 1>>>(nullptr, 0);
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  std::printf("{\"runtime\": \"%d.%d\"}\n", runtime / 1000, runtime % 1000 / 10);
  return runtime == 0;
}
