// What a locked toolchain is tried with: threads, exceptions, an assertion's file name, the C++ library of both kinds
// (templates and what is linked).
#include <cassert>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

int main() {
    std::map<std::string, int> seen;
    std::thread worker([&] {
        try {
            throw std::runtime_error("thrown");
        } catch (const std::exception &e) {
            seen[e.what()] = 1;
        }
    });
    worker.join();
    assert(seen.size() == 1);
    std::printf("{\"compiler\": \"%s\", \"library\": %d}\n", __clang_version__, int(__GLIBCXX__));
    return seen.count("thrown") == 1 ? 0 : 1;
}
