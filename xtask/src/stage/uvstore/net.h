// Where the server listens, and for whom it lives: what c10d's daemon leaves to libuv, decided here.
//
// c10d listens on all interfaces and lives as long as the process. CMakeLists.txt renames the libuv functions that
// its backend calls to those below, so that its source stays what it is.
#pragma once

#include <cstdint>
#include <string>

namespace net {

// The addresses that a MASTER_ADDR stands for: loopback stays on loopback, an address of this machine is that
// address alone. A name may mean something else on another machine: everywhere, as c10d does, and so for `everywhere`.
void listen_on(const std::string& address);

// The server ends when the last connection that sent this text has closed: those are the stores of the process that
// asked for the server. It is sent as the key of a deletion, which changes nothing.
void end_with_owner(const std::string& token);

// Whether the last failure to listen was an address that somebody else has.
bool address_is_taken();

// Numeric addresses of a host's name, or the name itself where none is found.
std::string numeric(const std::string& host);

} // namespace net
