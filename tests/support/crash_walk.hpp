// The walk over crash points: at every point that an operation passes, one process is killed and
// another is stopped, while others continue and check whether the promises hold. It knows no
// concept: scenarios name the actor, the acts of the others, and the checks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/premises.hpp"
#include "tests/support/talk.hpp"
#include "tests/support/tier.hpp"

namespace penstock::trust {

// Noticed too late, and otherwise right. The walk itself keeps the machine busy, so such a case is
// judged when the walk is over: alone, three times; it fails if it is late more than once.
class Late : public Broken {
public:
    using Broken::Broken;
};

// The victim finished without passing the point: whether it has to wait is a matter of timing.
class NotReached : public Broken {
public:
    using Broken::Broken;
};

// One operation of a victim, among other processes. Made anew for every case; its processes end
// with it.
class Scenario {
public:
    Scenario() = default;
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    virtual ~Scenario() = default;

    virtual void prepare() = 0;  // all have joined, the victim is about to act
    virtual Actor& victim() = 0;
    virtual std::string act() = 0;  // the line that makes it act
    virtual void meanwhile() {}     // acts of others that let the act end
    // Whether this scenario walks the point; the others are walked elsewhere.
    [[nodiscard]] virtual bool is_about(const std::string&) const { return true; }
    // A point that the scenario must pass to be meaningful.
    [[nodiscard]] virtual std::string must_pass() const { return {}; }

    // The checks. All throw Broken.
    virtual void after_completion(const Answer& answer) = 0;  // also after a stop and its end
    virtual void after_death() = 0;
    virtual void while_stopped() = 0;

    // Where and when the victim was struck.
    std::string point;
    int occurrence = 0;  // which passing of it, from 1
    std::int64_t blow_at = 0;
    // Notes how long others took to notice; more than the bound of DESIGN.md is Late.
    void noticed_after(std::int64_t nanoseconds, const std::string& what) {
        constexpr std::int64_t kBound = 100'000'000;
        slowest = std::max(slowest, nanoseconds);
        if (kIsSanitized || nanoseconds <= kBound) return;
        throw Late(what + " took " + std::to_string(nanoseconds / 1'000'000) + " ms");
    }
    std::int64_t slowest = 0;
};

struct Operation {
    std::string name;
    std::function<std::unique_ptr<Scenario>(const std::string& segment)> stage;
};

struct WalkOptions {
    bool is_full = false;
    unsigned lanes = 2;      // scenarios at a time
    std::size_t shard = 0;   // which share of the points is walked, of how many, so that
    std::size_t shards = 1;  // several processes can divide a walk
    std::string only;        // part of a case's name: "send inline/broadcast.send.written:1:kill"
    bool is_verbose = false;
};

// The main() of a crash walk, whose processes play `role`: walks every operation and prints the
// cases. Returns 0 if every case held. Arguments: [--full] [--lanes N] [--shard I/N] [--only
// PART_OF_A_CASE] [--verbose], shards counted from 1.
int crash_walk_main(int argc, char** argv, const Role& role,
                    const std::function<std::vector<Operation>()>& operations);

}  // namespace penstock::trust
