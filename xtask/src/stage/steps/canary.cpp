// The canary: a libuv TCPStore of this very build, its server and several clients in one process.
// Ends with status 0 and one line of JSON if everything came out right.

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kClients = 8;
constexpr int kRounds = 50;

c10d::TCPStoreOptions options(bool server, std::uint16_t port) {
  c10d::TCPStoreOptions o;
  o.port = port;
  o.isServer = server;
  o.numWorkers = 1;
  o.waitWorkers = false;
  o.timeout = std::chrono::seconds(30);
  o.multiTenant = false;
  o.useLibUV = true;
  return o;
}

std::vector<std::uint8_t> bytes(const std::string& s) {
  return {s.begin(), s.end()};
}

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

void client(std::uint16_t port, int rank) {
  c10d::TCPStore store("127.0.0.1", options(false, port));
  for (int i = 0; i < kRounds; ++i) {
    const auto key = "k" + std::to_string(rank) + "/" + std::to_string(i);
    store.set(key, bytes(key));
    if (store.get(key) != bytes(key)) {
      fail("get() returned something else than set() stored");
    }
    store.add("sum", 1);
  }
  // Each waits for what the next one stores.
  store.set("done" + std::to_string(rank), bytes("1"));
  store.wait({"done" + std::to_string((rank + 1) % kClients)});
}

} // namespace

int main() {
  try {
    c10d::TCPStore server("127.0.0.1", options(true, 0));
    if (!server.isLibUvBackend()) {
      fail("the store does not run on libuv");
    }
    std::vector<std::thread> threads;
    std::vector<std::string> errors(kClients);
    for (int rank = 0; rank < kClients; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          client(server.getPort(), rank);
        } catch (const std::exception& e) {
          errors[rank] = e.what();
        }
      });
    }
    for (auto& t : threads) {
      t.join();
    }
    for (const auto& e : errors) {
      if (!e.empty()) {
        fail(e);
      }
    }
    const auto sum = server.add("sum", 0);
    if (sum != kClients * kRounds) {
      fail("the counter says " + std::to_string(sum));
    }
    std::printf("{\"libuv\": true, \"clients\": %d, \"operations\": %d}\n", kClients, kClients * (3 * kRounds + 2));
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "canary: %s\n", e.what());
    return 1;
  }
}
