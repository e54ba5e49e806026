// The walk over crash points: for every point that an operation passes, a process dies there and
// another stops there, while others go on and are asked whether the promises still hold.
// Knows nothing of any concept: scenarios name the actor, what the others do, and what must hold.
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

// Noticed too late, and nothing else. The walk keeps the machine busy itself, so such a case is
// judged when the walk is over: alone, three times, and it has failed if it is late again more than
// once.
class Late : public Broken {
public:
    using Broken::Broken;
};

// The victim finished without passing the point; waits are a matter of timing.
class NotReached : public Broken {
public:
    using Broken::Broken;
};

// One operation of one process, among others. Made afresh for every case; its processes die with
// it.
class Scenario {
public:
    Scenario() = default;
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    virtual ~Scenario() = default;

    virtual void prepare() = 0;  // all are there, the victim is about to act
    virtual Actor& victim() = 0;
    virtual std::string act() = 0;  // the line that makes it act
    virtual void meanwhile() {}     // what others do so that the act can end
    // Which of the points passed this scenario is about; the others are walked elsewhere.
    [[nodiscard]] virtual bool is_about(const std::string&) const { return true; }
    // A point without which the scenario is not what it says.
    [[nodiscard]] virtual std::string must_pass() const { return {}; }

    // What must hold. All throw Broken.
    virtual void after_completion(const Answer& answer) = 0;  // also after a stop and its end
    virtual void after_death() = 0;
    virtual void while_stopped() = 0;

    // The blow: where, and at which moment, for bounds in time.
    std::string point;
    int occurrence = 0;  // which passing of it, from 1
    std::int64_t blow_at = 0;
    // Says how long others took to notice; what is over the bound of DESIGN.md is Late.
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

// The main() of a crash walk, whose processes play `role`: walks every operation. 0 if every case
// held; prints what was walked. Arguments: [--full] [--lanes N] [--shard I/N]
// [--only PART_OF_A_CASE] [--verbose], shards counted from 1.
int crash_walk_main(int argc, char** argv, const Role& role,
                    const std::function<std::vector<Operation>()>& operations);

}  // namespace penstock::trust
