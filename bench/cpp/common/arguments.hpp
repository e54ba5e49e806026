// The arguments of every benchmark: --quick for a short run, and filters for a single case: --size
// BYTES, --readers N, --who NAME (repeatable).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::bench {

struct Arguments {
    bool quick = false;
    std::optional<std::uint64_t> size;
    std::optional<unsigned> readers;
    std::vector<std::string> who;

    [[nodiscard]] bool wants_size(std::uint64_t candidate) const {
        return !size || *size == candidate;
    }
    [[nodiscard]] bool wants_readers(unsigned candidate) const {
        return !readers || *readers == candidate;
    }
    [[nodiscard]] bool wants(std::string_view candidate) const {
        return who.empty() || std::find(who.begin(), who.end(), candidate) != who.end();
    }
};

inline Arguments parse_arguments(int argc, char** argv) {
    Arguments parsed;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (word == "--quick") {
            parsed.quick = true;
        } else if (word == "--size" && value != nullptr) {
            parsed.size = std::strtoull(value, nullptr, 10);
            ++i;
        } else if (word == "--readers" && value != nullptr) {
            parsed.readers = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
            ++i;
        } else if (word == "--who" && value != nullptr) {
            parsed.who.emplace_back(value);
            ++i;
        } else {
            std::fprintf(stderr, "usage: %s [--quick] [--size BYTES] [--readers N] [--who NAME]\n",
                         argv[0]);
            std::exit(2);
        }
    }
    return parsed;
}

}  // namespace penstock::bench
