// The crash walk of Queue: every point of every operation, a kill and a stop at each.
// usage: queue_crash_walk_test [--full] [--lanes N] [--only PART_OF_A_CASE] [--verbose]
#include <cstdio>
#include <string>

#include "tests/crash/queue_scenarios.hpp"

#ifndef PENSTOCK_CRASH_POINTS

int main() {
    std::puts("skipped: built without PENSTOCK_CRASH_POINTS");
    return 0;
}

#else

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kQueueRole, play_queue_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;

    WalkOptions options;
    options.is_full = is_full_tier(argc, argv);
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--verbose") options.is_verbose = true;
        if (word == "--only" && i + 1 < argc) options.only = argv[++i];
        if (word == "--lanes" && i + 1 < argc)
            options.lanes = static_cast<unsigned>(std::stoul(argv[++i]));
    }
    Premises premises("queue-walk");
    return CrashWalk(premises, options).run(queue_operations());
}

#endif
