#include "net.h"

#include <uv.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_set>
#include <vector>

#ifndef _WIN32
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/wait.h>
#include <unistd.h>
#else
#include <winsock2.h>
#include <ws2tcpip.h>
#endif

namespace {

std::vector<sockaddr_storage> wanted; // none: everywhere
std::string owner_key;
std::unordered_set<const void*> owners;
int failure = 0;

uv_connection_cb new_connection = nullptr;
uv_read_cb read_done = nullptr;
uv_stream_t* first = nullptr;
uv_tcp_t second; // the other loopback address
bool at_second = false;

sockaddr* raw(sockaddr_storage& address) {
  return reinterpret_cast<sockaddr*>(&address);
}

void set_port(sockaddr_storage& address, std::uint16_t port) {
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = port;
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = port;
  }
}

std::uint16_t port_of(const sockaddr_storage& address) {
  return address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                       : reinterpret_cast<const sockaddr_in&>(address).sin_port;
}

bool parse(const std::string& text, sockaddr_storage& address) {
  return uv_ip4_addr(text.c_str(), 0, reinterpret_cast<sockaddr_in*>(&address)) == 0 ||
      uv_ip6_addr(text.c_str(), 0, reinterpret_cast<sockaddr_in6*>(&address)) == 0;
}

int bind_to(uv_tcp_t* handle, sockaddr* address) {
#ifdef _WIN32
  // Windows lets a second program listen on an address that the first one has, unless the first says no.
  const auto size = static_cast<int>(address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
  const SOCKET s = WSASocketW(address->sa_family, SOCK_STREAM, 0, nullptr, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
  if (s == INVALID_SOCKET) {
    return uv_translate_sys_error(WSAGetLastError());
  }
  const int on = 1, off = 0;
  setsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, reinterpret_cast<const char*>(&on), sizeof on);
  if (address->sa_family == AF_INET6) {
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, reinterpret_cast<const char*>(&off), sizeof off);
  }
  if (bind(s, address, size) != 0) {
    const int error = WSAGetLastError();
    closesocket(s);
    // Another program's exclusive address is told as "access denied".
    return error == WSAEACCES ? UV_EADDRINUSE : uv_translate_sys_error(error);
  }
  return uv_tcp_open(handle, s);
#else
  return uv_tcp_bind(handle, address, 0);
#endif
}

void at_second_connection(uv_stream_t*, int status) {
  at_second = true;
  new_connection(first, status);
  at_second = false;
}

// `localhost` is two addresses, and a client tries the other one first: on Windows it waits two seconds for a no.
void listen_on_second(uv_tcp_t* handle, int backlog) {
  sockaddr_storage here{};
  int size = sizeof here;
  if (uv_tcp_getsockname(handle, raw(here), &size) != 0 || uv_tcp_init(handle->loop, &second) != 0) {
    return;
  }
  set_port(wanted[1], port_of(here));
  auto* stream = reinterpret_cast<uv_stream_t*>(&second);
  if (bind_to(&second, raw(wanted[1])) != 0 || uv_listen(stream, backlog, at_second_connection) != 0) {
    uv_close(reinterpret_cast<uv_handle_t*>(&second), nullptr); // no IPv6 here
  }
}

void note_owner(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer) {
  // A request ends with its key, and its sender waits for the answer: nothing comes after it, but something else, such
  // as the greeting, may have come with it.
  const auto at = static_cast<std::size_t>(size) - owner_key.size();
  if (static_cast<std::size_t>(size) >= owner_key.size() &&
      std::memcmp(buffer->base + at, owner_key.data(), owner_key.size()) == 0) {
    owners.insert(stream);
  }
}

void after_read(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer) {
  if (size > 0 && !owner_key.empty()) {
    note_owner(stream, size, buffer);
  }
  read_done(stream, size, buffer);
}

} // namespace

namespace net {

void listen_on(const std::string& address) {
  wanted.clear();
  std::vector<std::string> texts{address};
  if (address == "localhost") {
    texts = {"127.0.0.1", "::1"};
  }
  for (const auto& text : texts) {
    sockaddr_storage parsed{};
    if (parse(text, parsed)) {
      wanted.push_back(parsed);
    }
  }
}

void end_with_owner(const std::string& token) {
  owner_key = "/" + token; // as c10d's clients send every key
}

bool address_is_taken() {
  return failure == UV_EADDRINUSE;
}

std::string numeric(const std::string& host) {
  sockaddr_storage parsed{};
  if (parse(host, parsed)) {
    return host;
  }
  if (host == "localhost") {
    return "127.0.0.1";
  }
#if defined(__linux__)
  // A static program cannot ask the C library, whose answers come from modules of the system's own copy:
  // the system's program can.
  int ends[2];
  if (pipe(ends) != 0) {
    return host;
  }
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 1);
    close(ends[0]);
    execlp("getent", "getent", "ahosts", host.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(ends[1]);
  std::string said;
  char part[256];
  for (ssize_t n; child > 0 && (n = read(ends[0], part, sizeof part)) > 0;) {
    said.append(part, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  if (child > 0) {
    waitpid(child, nullptr, 0);
  }
  const auto found = said.substr(0, said.find_first_of(" \t\n"));
  return found.empty() ? host : found;
#else
  return host;
#endif
}

} // namespace net

extern "C" {

int uvstore_tcp_bind(uv_tcp_t* handle, const sockaddr* address, unsigned) {
  sockaddr_storage there{};
  std::memcpy(&there, address, address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
  if (!wanted.empty()) {
    set_port(wanted[0], port_of(there));
    failure = bind_to(handle, raw(wanted[0]));
    if (failure != UV_EADDRNOTAVAIL) {
      return failure;
    }
    wanted.clear(); // an address that others reach this machine by, and that it does not have: everywhere
  }
  return failure = bind_to(handle, raw(there));
}

int uvstore_listen(uv_stream_t* stream, int backlog, uv_connection_cb callback) {
  first = stream;
  new_connection = callback;
  failure = uv_listen(stream, backlog, callback);
  if (failure == 0 && wanted.size() > 1) {
    listen_on_second(reinterpret_cast<uv_tcp_t*>(stream), backlog);
  }
  return failure;
}

int uvstore_accept(uv_stream_t* server, uv_stream_t* client) {
  return uv_accept(at_second ? reinterpret_cast<uv_stream_t*>(&second) : server, client);
}

int uvstore_read_start(uv_stream_t* stream, uv_alloc_cb allocate, uv_read_cb callback) {
  read_done = callback;
  return uv_read_start(stream, allocate, after_read);
}

void uvstore_close(uv_handle_t* handle, uv_close_cb callback) {
  if (owners.erase(handle) > 0 && owners.empty()) {
    std::_Exit(0); // as a store's own server ends with the store
  }
  uv_close(handle, callback);
}
}
