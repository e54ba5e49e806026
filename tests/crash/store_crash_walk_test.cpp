// The crash walk of the Store: every point of every operation, a kill and a stop at each.
// usage: store_crash_walk_test [--full] [--lanes N] [--shard I/N] [--only PART_OF_A_CASE]
// [--verbose]
#include "tests/crash/store_scenarios.hpp"

int main(int argc, char** argv) {
    using namespace penstock::trust;
    constexpr Role kRoles[] = {{kStoreRole, play_store_actor}};
    if (const auto code = play_role(argc, argv, kRoles)) return *code;
    Premises premises("store-walk");
    return run_crash_walk(premises, parse_walk_options(argc, argv), store_operations());
}
