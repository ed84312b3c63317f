/* Tries a CUDA toolkit for Windows on another system: linked by mingw-w64 with the toolkit's import libraries, run by
   Wine. Each library says its version, and the run-time compiler compiles a kernel to PTX, into the file that the
   argument names. cudart says nothing: that of CUDA 13 for Windows is a loader of what comes with the driver. Headers of
   CUDA want Microsoft's compiler on Windows, so what is called is declared here. */
#include <stdio.h>
#include <stdlib.h>

int nvrtcVersion(int *major, int *minor);
int cublasGetProperty(int which, int *value);
size_t cudnnGetVersion(void);
int nvrtcCreateProgram(void **program, const char *text, const char *name, int n, const char *const *headers,
                       const char *const *names);
int nvrtcCompileProgram(void *program, int n, const char *const *options);
int nvrtcGetPTXSize(void *program, size_t *size);
int nvrtcGetPTX(void *program, char *ptx);

static int compiles(const char *architecture, const char *to) {
  const char *text = "extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }\n";
  const char *options[] = {architecture};
  void *program = NULL;
  size_t size = 0;
  if (nvrtcCreateProgram(&program, text, "twice.cu", 0, NULL, NULL) != 0) return 0;
  if (nvrtcCompileProgram(program, 1, options) != 0 || nvrtcGetPTXSize(program, &size) != 0) return 0;
  char *ptx = malloc(size);
  if (ptx == NULL || nvrtcGetPTX(program, ptx) != 0) return 0;
  FILE *file = fopen(to, "wb");
  if (file == NULL) return 0;
  /* The last byte is C's end of a text. */
  int whole = fwrite(ptx, 1, size - 1, file) == size - 1;
  return fclose(file) == 0 && whole;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int release[2] = {0, 0}, blas[3] = {0, 0, 0};
  nvrtcVersion(&release[0], &release[1]);
  for (int i = 0; i < 3; ++i) cublasGetProperty(i, &blas[i]);
  unsigned dnn = (unsigned)cudnnGetVersion();
  if (!compiles(argv[1], argv[2])) {
    fprintf(stderr, "error: NVRTC compiled nothing\n");
    return 1;
  }
  printf("{\"runtime\": \"%d.%d\", \"cublas\": \"%d.%d.%d\", \"cudnn\": \"%u.%u.%u\", \"nccl\": null}\n",
         release[0], release[1], blas[0], blas[1], blas[2], dnn / 10000, dnn % 10000 / 100, dnn % 100);
  return release[0] == 0;
}
