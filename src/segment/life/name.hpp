// Names of segments and where they lead: "steps" is /dev/shm/penstock.steps, "file:/path" a path.
#pragma once

#include <string>

namespace penstock::detail {

inline constexpr const char* kSharedMemoryDirectory = "/dev/shm";
inline constexpr const char* kFilePrefix = "penstock.";

struct Location {
    std::string name;       // as the user wrote it; empty for an anonymous segment
    std::string path;       // empty for an anonymous segment
    std::string directory;  // where its private beginning lies
};

// Throws Error(InvalidName) with the rule and the offending character.
Location locate(const std::string& name);

// "'steps'" or "an anonymous segment", for sentences.
std::string quoted(const std::string& name);

}  // namespace penstock::detail
