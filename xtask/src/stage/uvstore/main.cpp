// uvstore: c10d's TCPStore server on libuv, as a program of its own, for builds of torch that have none.
//
//   uvstore serve [--port N] [--address A]         a server, until it is told to stop
//   uvstore run [--port N] [--address A] -- PROGRAM ARGUMENTS…
//                                                  a server, and a program whose ranks use it
//   uvstore check --port N [--address A] …         clients that try every operation of a server
//
// Made of the sources of the torch that it is for, so the protocol is that torch's.

#include "net.h"
#include "tie.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStoreBackend.hpp>
#include <torch/csrc/distributed/c10d/socket.h>
#include <uv.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifdef _WIN32
#include <process.h>
#else
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

// The files of the hook, by their names.
constexpr const char* kHook[][2] = {
#include "hook.inc"
};

// Exit codes as everywhere in torchmill: 1 the answer is no, 2 misuse, 3 the world failed.
constexpr int kNo = 1;
constexpr int kMisuse = 2;
constexpr int kWorld = 3;

constexpr const char* kHelp =
    "usage: uvstore serve [--port N] [--address A] [--tie PID]\n"
    "       uvstore run [--port N] [--address A] [--join] -- PROGRAM ARGUMENTS...\n"
    "       uvstore check --port N [--address A] [--clients N] [--rounds N] [--first N]\n"
    "       uvstore --version\n"
    "\n"
    "A TCPStore server on libuv, for a torch that was built without it.\n"
    "  serve   prints {\"port\": N, \"libuv\": true} and serves until it is stopped; with --tie until the process\n"
    "          that started it ends, or has closed the stores that it said are its own\n"
    "  run     serves and runs a program, `python train.py` or `torchrun ...`, whose ranks connect to it;\n"
    "          with --join the server of another node at --address and --port is used\n"
    "  check   tries every operation of a server with clients of its own, and says how it went\n"
    "\n"
    "It listens where --address says: on loopback alone for localhost (as if nothing is said), 127.0.0.1 and ::1; on\n"
    "one address of this machine if it is given in digits; on all for a host's name, and for `everywhere`.\n"
    "\n"
    "examples:\n"
    "  uvstore run -- python train.py\n"
    "  uvstore run -- torchrun --nproc-per-node 4 train.py\n"
    "  uvstore run --address node0 --port 29500 -- torchrun --nnodes 2 --node-rank 0 ...    the first node\n"
    "  uvstore run --join --address node0 --port 29500 -- torchrun ...                      the others\n";

struct Misuse : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string command;
  std::uint16_t port = 0;
  std::string address = "127.0.0.1";
  bool join = false;
  long tie = 0;
  std::optional<int> listening;
  int clients = 8;
  int rounds = 50;
  int first = 0;
  std::vector<std::string> program;
};

long number(const std::string& name, const std::string& text, long least, long most) {
  char* end = nullptr;
  const long n = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || n < least || n > most) {
    throw Misuse(
        name + " " + text + ": a number from " + std::to_string(least) + " to " + std::to_string(most) + " is wanted");
  }
  return n;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  if (argc < 2) {
    throw Misuse("no command: serve, run or check");
  }
  a.command = argv[1];
  if (a.command != "serve" && a.command != "run" && a.command != "check") {
    throw Misuse("'" + a.command + "' is no command: serve, run or check");
  }
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--" && a.command == "run") {
      a.program.assign(argv + i + 1, argv + argc);
      break;
    }
    if (name == "--join") {
      a.join = true;
      continue;
    }
    if (i + 1 >= argc) {
      throw Misuse("'" + name + "' is unknown, or lacks its value");
    }
    const std::string value = argv[++i];
    if (name == "--port") {
      a.port = static_cast<std::uint16_t>(number(name, value, 0, 65535));
    } else if (name == "--address") {
      a.address = value;
    } else if (name == "--tie" && a.command == "serve") {
      a.tie = number(name, value, 1, 0x7fffffff);
    } else if (name == "--fd" && a.command == "serve") {
      a.listening = static_cast<int>(number(name, value, 0, 0x7fffffff));
    } else if (name == "--clients") {
      a.clients = static_cast<int>(number(name, value, 1, 4096));
    } else if (name == "--rounds") {
      a.rounds = static_cast<int>(number(name, value, 1, 1000000));
    } else if (name == "--first") {
      a.first = static_cast<int>(number(name, value, 0, 1000000));
    } else {
      throw Misuse("'" + name + "' is unknown");
    }
  }
  if (a.command == "run" && a.program.empty()) {
    throw Misuse("run what? uvstore run -- python train.py");
  }
  if ((a.command == "check" || a.join) && a.port == 0) {
    throw Misuse("--port is needed: where the server is");
  }
  return a;
}

std::vector<std::uint8_t> bytes(const std::string& s) {
  return {s.begin(), s.end()};
}

c10d::TCPStoreOptions options(bool server, std::uint16_t port) {
  c10d::TCPStoreOptions o;
  o.port = port;
  o.isServer = server;
  o.waitWorkers = false;
  o.timeout = std::chrono::seconds(30);
  o.useLibUV = true;
  return o;
}

using Server = std::unique_ptr<c10d::detail::BackgroundThread>;

Server serve(const Arguments& a) {
  net::listen_on(a.address);
  auto o = options(true, a.port);
  if (a.listening) {
    o.masterListenFd = a.listening;
  }
  c10d::detail::Socket::initialize();
  auto daemon = c10d::detail::create_libuv_tcpstore_backend(o);
  daemon->start();
  return daemon;
}

std::atomic<bool> stopped{false};

void stop(int) {
  stopped = true;
}

// Measured with a thousand clients that come at one time; before any thread or loop is made.
void prepare_for_many_clients() {
#ifndef _WIN32
  // Every rank is a file here, and a shell's limit is often 1024.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  // Linux doubles a process's table of files as it fills, and lets a process of several threads wait each time for all
  // processors (expand_fdtable(): synchronize_rcu()), some 10 ms. One file far up keeps the table large from the
  // beginning, beyond a fork too.
  const int some = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (some >= 0) {
    for (int last = 1 << 14; last >= 1 << 8 && fcntl(some, F_DUPFD_CLOEXEC, last - 1) < 0; last /= 2) {
    }
    close(some);
  }
#endif
#ifdef __GLIBC__
  // One thread serves. The memory of a thread that is not the first grows by a page and a system call at a time.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TOP_PAD, 4 << 20);
#endif
}

std::string random_text() {
  std::random_device device;
  std::string text = "uvstore-owner-";
  for (int i = 0; i < 32; ++i) {
    text += "0123456789abcdef"[device() % 16];
  }
  return text;
}

long own_process() {
#ifdef _WIN32
  return _getpid();
#else
  return getpid();
#endif
}

// A server for the process that started this one. What goes wrong is told on standard output, where that one reads.
int run_tied(const Arguments& a) {
  try {
    tie::to(a.tie);
    const auto token = random_text();
    net::end_with_owner(token);
    const auto server = serve(a);
    std::printf(
        "{\"port\": %d, \"libuv\": true, \"pid\": %ld, \"owner\": \"%s\"}\n",
        static_cast<int>(server->port()),
        own_process(),
        token.c_str());
    std::fflush(stdout);
    for (;;) {
      std::this_thread::sleep_for(std::chrono::hours(24));
    }
  } catch (const std::exception& e) {
    std::string said = e.what();
    said = said.substr(0, said.find('\n'));
    for (auto& c : said) {
      c = c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
    std::printf("{\"error\": \"%s\", \"taken\": %s}\n", said.c_str(), net::address_is_taken() ? "true" : "false");
    std::fflush(stdout);
    std::_Exit(kWorld);
  }
}

int run_server(const Arguments& a) {
  prepare_for_many_clients();
  if (a.tie != 0) {
    return run_tied(a);
  }
  const auto server = serve(a);
  std::printf("{\"port\": %d, \"libuv\": true}\n", static_cast<int>(server->port()));
  std::fflush(stdout);
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
  while (!stopped) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return 0;
}

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

// Every operation of the protocol, as rank `rank` of ranks that count from `first`.
void client(const Arguments& a, int rank) {
  c10d::TCPStore store(net::numeric(a.address), options(false, a.port));
  const auto me = std::to_string(a.first + rank);
  for (int i = 0; i < a.rounds; ++i) {
    const auto key = "k" + me + "/" + std::to_string(i);
    store.set(key, bytes(key));
    if (store.get(key) != bytes(key)) {
      fail("get() returned something else than set() stored");
    }
    store.add("sum", 1);
    store.add("own" + me, 2);
  }
  if (store.add("own" + me, 0) != 2 * a.rounds) {
    fail("add() lost something");
  }
  if (!store.check({"k" + me + "/0"}) || store.check({"k" + me + "/0", "no such key"})) {
    fail("check() is wrong");
  }
  if (store.compareSet("c" + me, bytes(""), bytes("one")) != bytes("one") ||
      store.compareSet("c" + me, bytes("other"), bytes("two")) != bytes("one") ||
      store.compareSet("c" + me, bytes("one"), bytes("two")) != bytes("two")) {
    fail("compareSet() is wrong");
  }
  store.multiSet({"m" + me, "n" + me}, {bytes("m"), bytes("n")});
  const auto both = store.multiGet({"m" + me, "n" + me});
  if (both.size() != 2 || both[0] != bytes("m") || both[1] != bytes("n")) {
    fail("multiGet() is wrong");
  }
  store.append("a" + me, bytes("x"));
  store.append("a" + me, bytes("y"));
  if (store.get("a" + me) != bytes("xy")) {
    fail("append() is wrong");
  }
  if (!store.deleteKey("m" + me) || store.deleteKey("m" + me)) {
    fail("deleteKey() is wrong");
  }
  if (rank == 0) {
    // The largest value that the libuv backend takes, and a wait that must end by its limit.
    std::vector<std::uint8_t> large(8u << 20);
    for (std::size_t i = 0; i < large.size(); ++i) {
      large[i] = static_cast<std::uint8_t>(i * 131 + 7);
    }
    store.set("large" + me, large);
    if (store.get("large" + me) != large) {
      fail("a value of 8 MiB came back changed");
    }
    bool late = false;
    try {
      store.wait({"never" + me}, std::chrono::milliseconds(300));
    } catch (const std::exception&) {
      late = true;
    }
    if (!late) {
      fail("wait() for a key that nobody sets came back");
    }
    // The store still works after a wait that ran out.
    store.set("after" + me, bytes("1"));
    if (store.getNumKeys() < 4) {
      fail("getNumKeys() is wrong");
    }
  }
  // Each waits for what the next one stores.
  store.set("done" + me, bytes("1"));
  store.wait({"done" + std::to_string(a.first + (rank + 1) % a.clients)});
}

int run_check(const Arguments& a) {
  std::vector<std::thread> threads;
  std::vector<std::string> errors(static_cast<std::size_t>(a.clients));
  for (int rank = 0; rank < a.clients; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        client(a, rank);
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(rank)] = e.what();
      }
    });
  }
  for (auto& t : threads) {
    t.join();
  }
  for (const auto& e : errors) {
    if (!e.empty()) {
      std::fprintf(stderr, "uvstore: check: %s\n", e.c_str());
      return kNo;
    }
  }
  c10d::TCPStore store(net::numeric(a.address), options(false, a.port));
  std::printf(
      "{\"ok\": true, \"clients\": %d, \"rounds\": %d, \"sum\": %lld}\n",
      a.clients,
      a.rounds,
      static_cast<long long>(store.add("sum", 0)));
  return 0;
}

void set_env(const std::string& name, const std::string& value) {
#ifdef _WIN32
  _putenv_s(name.c_str(), value.c_str());
#else
  setenv(name.c_str(), value.c_str(), 1);
#endif
}

// A folder that vanishes with this value.
struct Folder {
  std::filesystem::path path;
  Folder() {
    const auto base = std::filesystem::temp_directory_path();
#ifdef _WIN32
    const auto id = _getpid();
#else
    const auto id = getpid();
#endif
    for (int i = 0; i < 1000; ++i) {
      path = base / ("uvstore-" + std::to_string(id) + "-" + std::to_string(i));
      if (std::filesystem::create_directory(path)) {
        std::filesystem::permissions(path, std::filesystem::perms::owner_all);
        return;
      }
    }
    throw std::runtime_error("no folder can be made in " + base.string());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

#ifdef _WIN32
// One argument as CommandLineToArgvW takes it apart: _spawnvp() puts spaces between arguments, and no more.
std::string quoted(const std::string& argument) {
  if (!argument.empty() && argument.find_first_of(" \t\n\v\"") == std::string::npos) {
    return argument;
  }
  std::string out = "\"";
  std::size_t backslashes = 0;
  for (const char c : argument) {
    if (c == '\\') {
      ++backslashes;
      continue;
    }
    // Backslashes count twice before a quote, and the quote itself gets one.
    out.append(c == '"' ? 2 * backslashes + 1 : backslashes, '\\');
    backslashes = 0;
    out.push_back(c);
  }
  out.append(2 * backslashes, '\\');
  return out + '"';
}
#endif

int wait_for(const std::vector<std::string>& program) {
#ifdef _WIN32
  std::vector<std::string> words;
  for (const auto& p : program) {
    words.push_back(quoted(p));
  }
  std::vector<const char*> argv;
  for (const auto& w : words) {
    argv.push_back(w.c_str());
  }
  argv.push_back(nullptr);
  std::signal(SIGINT, SIG_IGN); // the console's Ctrl-C reaches the program by itself
  const auto status = _spawnvp(_P_WAIT, program[0].c_str(), argv.data());
  if (status == -1) {
    std::fprintf(stderr, "uvstore: '%s' cannot be started: %s\n", program[0].c_str(), std::strerror(errno));
    return kWorld;
  }
  return static_cast<int>(status);
#else
  std::vector<char*> argv;
  for (const auto& p : program) {
    argv.push_back(const_cast<char*>(p.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execvp(argv[0], argv.data());
    std::fprintf(stderr, "uvstore: '%s' cannot be started: %s\n", argv[0], std::strerror(errno));
    _exit(kWorld);
  }
  if (child < 0) {
    throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  }
  std::signal(SIGINT, stop); // a terminal's Ctrl-C reaches the program by itself
  std::signal(SIGTERM, stop);
  int status = 0;
  bool told = false;
  for (;;) {
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) {
      break;
    }
    if (stopped && !told) {
      kill(child, SIGTERM);
      told = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
#endif
}

std::string own_path() {
  char path[4096];
  std::size_t size = sizeof path;
  return uv_exepath(path, &size) == 0 ? std::string(path, size) : std::string();
}

void put_hook(const std::filesystem::path& folder) {
  for (const auto& file : kHook) {
    const auto path = folder / file[0];
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << file[1];
  }
}

int run_program(const Arguments& a) {
  Server server;
  std::uint16_t port = a.port;
  if (a.join) {
    // The other node may be slower than this one: a client waits for it.
    auto o = options(false, a.port);
    o.timeout = std::chrono::minutes(5);
    const c10d::TCPStore found(net::numeric(a.address), o);
  } else {
    prepare_for_many_clients();
    server = serve(a);
    port = server->port();
  }
  const Folder folder;
  put_hook(folder.path);
#ifdef _WIN32
  const char separator = ';';
#else
  const char separator = ':';
#endif
  const char* path = std::getenv("PYTHONPATH");
  const auto own = folder.path.string();
  set_env("PYTHONPATH", path != nullptr && *path != '\0' ? own + separator + path : own);
  set_env("UVSTORE_PROGRAM", own_path());
  set_env("UVSTORE_SERVER", a.address + ":" + std::to_string(port));
  set_env("MASTER_ADDR", a.address);
  set_env("MASTER_PORT", std::to_string(port));
  // torchrun reads its own options from variables of these names.
  set_env("PET_MASTER_ADDR", a.address);
  set_env("PET_MASTER_PORT", std::to_string(port));
  const int code = wait_for(a.program);
  if (!std::filesystem::exists(folder.path / "ran")) {
    std::fprintf(
        stderr,
        "uvstore: no Python of this run read the hook: there was none, or one that ignores PYTHONPATH (python -I or -E, "
        "an embeddable Python with a ._pth file).\n"
        "  next: install the wheel of uvstore into that Python (`python -m pip install FILE`), and start the program as always\n");
  }
  return code;
}

} // namespace

int main(int argc, char** argv) {
  if (argc > 1 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("uvstore " UVSTORE_VERSION " (the store of PyTorch " TORCH_VERSION ", libuv %s)\n", uv_version_string());
    return 0;
  }
  // c10d warns of what is expected here, such as a wait that runs out; who sets a level gets that one.
  const bool own_level = std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr;
  if (own_level) {
    FLAGS_caffe2_log_level = 2; // errors
  }
  try {
    const auto a = parse(argc, argv);
    if (a.command == "serve") {
      return run_server(a);
    }
    return a.command == "run" ? run_program(a) : run_check(a);
  } catch (const Misuse& e) {
    std::fprintf(stderr, "uvstore: %s\n\n%s", e.what(), kHelp);
    return kMisuse;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "uvstore: %s\n", e.what());
    return kWorld;
  }
}
