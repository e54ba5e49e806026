// The crash walk of the Store: every point of every operation, a kill and a stop at each.
// usage: store_crash_walk_test [--full] [--lanes N] [--only PART_OF_A_CASE] [--verbose]
#include "tests/crash/store_scenarios.hpp"

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kStoreRole, play_store_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    Premises premises("store-walk");
    return CrashWalk(premises, parse_walk_options(argc, argv)).run(store_operations());
}
