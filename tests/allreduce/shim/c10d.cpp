// A C interface to what tch does not bind: c10d's TCPStore, ProcessGroupGloo and ProcessGroupNCCL.
//
// Every function that can fail returns a null pointer or -1 and leaves the exception's text in
// c10d_error(), which belongs to the calling thread.

#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace {

thread_local std::string error;

template <typename F>
auto guarded(decltype(std::declval<F>()()) failed, F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const c10::Error& e) {
    error = e.what_without_backtrace();
  } catch (const std::exception& e) {
    error = e.what();
  } catch (...) {
    error = "an exception that is no std::exception";
  }
  return failed;
}

struct StoreHandle {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

struct GroupHandle {
  c10::intrusive_ptr<c10d::Backend> backend;
  std::function<void()> end; // what has to be done before it goes, if anything
};

// NCCL's communicators are ended by whoever made them. How is not the same in all versions: where it takes an argument
// that must be given, it is left to the destructor.
template <typename G>
auto end(G& group, int) -> decltype(group.shutdown(), void()) {
  group.shutdown();
}
template <typename G>
void end(G&, long) {}

c10d::Store& store_of(void* handle) {
  return *static_cast<StoreHandle*>(handle)->store;
}

std::vector<uint8_t> bytes_of(const uint8_t* data, size_t len) {
  return std::vector<uint8_t>(data, data + len);
}

} // namespace

extern "C" {

const char* c10d_error() {
  return error.c_str();
}

int c10d_has_gloo() {
#ifdef USE_C10D_GLOO
  return 1;
#else
  return 0;
#endif
}

int c10d_has_nccl() {
#ifdef USE_C10D_NCCL
  return 1;
#else
  return 0;
#endif
}

// A store. `world` < 0: the number of its users is not known, nobody is waited for.
void* c10d_store(const char* host, uint16_t port, int64_t world, int server, int libuv, int64_t timeout_ms) {
  return guarded((void*)nullptr, [&]() -> void* {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = server != 0;
    if (world >= 0) {
      options.numWorkers = static_cast<size_t>(world);
    }
    options.waitWorkers = world >= 0;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    options.useLibUV = libuv != 0;
    return new StoreHandle{c10::make_intrusive<c10d::TCPStore>(std::string(host), options)};
  });
}

void c10d_store_free(void* handle) {
  delete static_cast<StoreHandle*>(handle);
}

uint16_t c10d_store_port(void* handle) {
  return static_cast<StoreHandle*>(handle)->store->getPort();
}

int c10d_store_is_libuv(void* handle) {
  return static_cast<StoreHandle*>(handle)->store->isLibUvBackend() ? 1 : 0;
}

int c10d_store_set(void* handle, const char* key, const uint8_t* data, size_t len) {
  return guarded(-1, [&] {
    store_of(handle).set(key, bytes_of(data, len));
    return 0;
  });
}

// Number of bytes of the value, of which at most `capacity` are written to `out`.
int64_t c10d_store_get(void* handle, const char* key, uint8_t* out, size_t capacity) {
  return guarded(int64_t{-1}, [&] {
    const auto value = store_of(handle).get(std::string(key));
    std::memcpy(out, value.data(), std::min(capacity, value.size()));
    return static_cast<int64_t>(value.size());
  });
}

int c10d_store_add(void* handle, const char* key, int64_t by, int64_t* now) {
  return guarded(-1, [&] {
    *now = store_of(handle).add(key, by);
    return 0;
  });
}

int c10d_store_wait(void* handle, const char* key, int64_t timeout_ms) {
  return guarded(-1, [&] {
    store_of(handle).wait({key}, std::chrono::milliseconds(timeout_ms));
    return 0;
  });
}

// 1 if the key is there, 0 if it is not.
int c10d_store_check(void* handle, const char* key) {
  return guarded(-1, [&] { return store_of(handle).check({key}) ? 1 : 0; });
}

// A process group of one backend. `address`: for Gloo, the host name or address to listen on, or
// "interface:NAME"; empty for what the machine's host name resolves to.
void* c10d_group(
    const char* backend, void* store, const char* prefix, int rank, int world, int64_t timeout_ms,
    const char* address) {
  return guarded((void*)nullptr, [&]() -> void* {
    const auto prefixed = c10::make_intrusive<c10d::PrefixStore>(
        prefix, static_cast<StoreHandle*>(store)->store);
    const std::string name(backend);
    const std::chrono::milliseconds timeout(timeout_ms);
#ifdef USE_C10D_GLOO
    if (name == "gloo") {
      const std::string where(address);
      const std::string interface = "interface:";
      auto options = c10d::ProcessGroupGloo::Options::create(timeout);
      if (where.empty()) {
        options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
      } else if (where.rfind(interface, 0) == 0) {
        options->devices.push_back(
            c10d::ProcessGroupGloo::createDeviceForInterface(where.substr(interface.size())));
      } else {
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(where));
      }
      options->threads = 2; // as init_process_group does
      return new GroupHandle{
          c10::make_intrusive<c10d::ProcessGroupGloo>(prefixed, rank, world, options)};
    }
#endif
#ifdef USE_C10D_NCCL
    if (name == "nccl") {
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = timeout;
      auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank, world, options);
      return new GroupHandle{group, [group] { end(*group, 0); }};
    }
#endif
    TORCH_CHECK(false, "this build has no backend '", name, "'");
  });
}

void c10d_group_free(void* handle) {
  guarded(0, [&] {
    std::unique_ptr<GroupHandle> group(static_cast<GroupHandle*>(handle));
    if (group->end) group->end();
    return 0;
  });
}

// Sums `tensor` (an at::Tensor*) over all ranks, in place, and waits for it. With NCCL the wait is
// one on the stream: synchronize the device before reading a clock.
int c10d_allreduce(void* group, void* tensor) {
  return guarded(-1, [&] {
    std::vector<at::Tensor> tensors{*static_cast<at::Tensor*>(tensor)};
    static_cast<GroupHandle*>(group)->backend->allreduce(tensors)->wait();
    return 0;
  });
}

int c10d_barrier(void* group) {
  return guarded(-1, [&] {
    static_cast<GroupHandle*>(group)->backend->barrier()->wait();
    return 0;
  });
}

// How torch was built: torch.__config__.show().
int64_t c10d_config(uint8_t* out, size_t capacity) {
  return guarded(int64_t{-1}, [&] {
    const std::string text = at::show_config();
    std::memcpy(out, text.data(), std::min(capacity, text.size()));
    return static_cast<int64_t>(text.size());
  });
}

} // extern "C"
