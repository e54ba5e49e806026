// One program, several parts: a test starts itself again in a role, so that every process of a test
// is a real one, with its own address space, descriptors and death.
#pragma once

#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::trust {

using Words = std::vector<std::string>;

struct Role {
    const char* name;
    int (*play)(const Words& arguments);
};

inline constexpr std::string_view kRoleFlag = "--role";

// The exit code of this process's role; empty if it is the test itself.
inline std::optional<int> play_role(int argc, char** argv, std::span<const Role> roles) {
    if (argc < 3 || argv[1] != kRoleFlag) return std::nullopt;
    const Words arguments(argv + 3, argv + argc);
    for (const Role& role : roles) {
        if (std::string_view(argv[2]) != role.name) continue;
        try {
            return role.play(arguments);
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s: %s\n", role.name, error.what());
            return 1;
        }
    }
    std::fprintf(stderr, "no role called %s\n", argv[2]);
    return 2;
}

}  // namespace penstock::trust
