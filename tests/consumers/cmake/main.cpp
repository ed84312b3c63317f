// A program as a user of the bundle writes it: tensors, and a libuv store.
#include <torch/torch.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdio>

int main() {
  const auto t = torch::ones({3, 4}).matmul(torch::ones({4, 2}));
  c10d::TCPStoreOptions o;
  o.port = 0;
  o.isServer = true;
  o.waitWorkers = false;
  o.useLibUV = true;
  c10d::TCPStore store("127.0.0.1", o);
  store.set("k", std::vector<uint8_t>{1, 2, 3});
  const bool right = t.sum().item<float>() == 24.0f && store.isLibUvBackend() && store.get("k").size() == 3;
  std::printf("{\"torch\": \"%s\", \"libuv\": %s}\n", TORCH_VERSION, store.isLibUvBackend() ? "true" : "false");
  return right ? 0 : 1;
}
