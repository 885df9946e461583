-- Runs measure.lua over a model of Pktgen: two ports, a switch between them that loses frames above a rate, a
-- generator with limits of its own. Plain Lua; scripts/test calls it: lua check.lua FOLDER
--
-- The model keeps Pktgen's own limits as its sources have them (pktgen-latency.h, pktgen-cmds.c): 10,000 us from
-- probe to probe unless told otherwise, a cap on samples beyond which an order is dropped, orders to a sampler
-- that runs dropped too, probes of one length that come on top of the rate, rates from 0.01 to 100 percent of the
-- speed that Pktgen takes the link for.

local folder = assert(arg[1], "where may files be written?")
local here = string.match(arg[0], "^(.*)/") or "."
local RESULTS, SAMPLES = folder .. "/results", folder .. "/samples"
local MOST_SAMPLES = 50068

local checked = 0

local function check(what, condition)
    checked = checked + 1
    if not condition then error("not so: " .. what, 2) end
end

-- Lines of flat JSON as tables; the run fails on what is none.
local function parse(line)
    local out = {}
    local body = assert(string.match(line, "^{(.*)}$"), "no JSON object: " .. line)
    local rest = body
    while rest ~= "" do
        local key, after = string.match(rest, '^"([%w_]+)":(.*)$')
        assert(key, "no key in " .. line)
        local text, tail = string.match(after, '^"([^"\\]*)"(.*)$')
        if text == nil then
            text, tail = string.match(after, "^([%-%d%.]+)(.*)$")
            if text then
                text = assert(tonumber(text), "no number in " .. line)
            else
                text, tail = string.match(after, "^(%a+)(.*)$")
                assert(text == "true" or text == "false", "no value in " .. line)
                text = text == "true"
            end
        end
        out[key] = text
        assert(tail == "" or string.sub(tail, 1, 1) == ",", "no comma in " .. line)
        rest = string.sub(tail, 2)
    end
    return out
end

-- A model of Pktgen. `world`: mbits of the link; believed, what Pktgen takes it for where that is another figure;
-- lossless, percent of the link up to which the switch loses nothing; most, percent of the link that the generator
-- reaches; eager, by how much it sends more than it was told; errors, frames it cannot send; slow, by how much each of
-- its delays takes longer; old, a release that takes no interval of probes; broken, an order that it does not know;
-- latency(n), nanoseconds of the n-th probe; probes_lost, a share.
local function model(world)
    local m = { ms = 1000000, quit = false, ordered = {} }
    local rate, size, running = 100, world.bytes, false
    local interval, sampler, params, enabled = 10000, nil, nil, {}
    local stats, sampled, probed = {}, 0, 0
    local function clear()
        stats = { [0] = { opackets = 0, oerrors = 0, ipackets = 0 }, [1] = { opackets = 0, ipackets = 0 } }
    end
    clear()

    local function pass(ms)
        ms = ms * (world.slow or 1)
        m.ms = m.ms + ms
        if not running then return end
        -- In percent of the link as it is.
        local told = rate * (world.believed or world.mbits) / world.mbits * (world.eager or 1)
        local reached = math.min(told, world.most or 100)
        local frames = math.floor(reached / 100 * world.mbits * 1e6 / ((size + 24) * 8) * ms / 1000)
        local sent_probes = enabled["0"] and math.floor(ms * 1000 / interval) or 0
        stats[0].opackets = stats[0].opackets + frames + sent_probes
        stats[0].oerrors = world.errors or 0
        local lost = 0
        if reached > world.lossless then lost = 1 + math.floor(frames * (reached - world.lossless) / reached) end
        stats[1].ipackets = stats[1].ipackets + math.max(0, frames - lost)
        if sampler and enabled["0"] then
            sampled = sampled + ms
            while probed < math.floor(sampled * 1000 / interval * (1 - (world.probes_lost or 0)) + 1e-6) do
                probed = probed + 1
                local seen = probed % params.every == 0
                if seen and #sampler < params.most then sampler[#sampler + 1] = world.latency(probed) end
            end
        end
    end

    m.pktgen = {
        screen = function() end,
        clr = clear,
        delay = pass,
        set = function(port, what, value)
            check("orders go to the sending port", port == "0")
            if what == "rate" then rate = value == 0 and 0.01 or math.min(value, 100) end
            if what == "size" then size = value - 4 end
            m.ordered[what] = value
        end,
        set_mac = function() end,
        set_ipaddr = function() end,
        set_proto = function() end,
        start = function(port) running = port == "0" end,
        stop = function() running = false end,
        linkState = function()
            return { [0] = world.state or string.format("<UP-%d-FD>", world.believed or world.mbits) }
        end,
        portStats = function(port, kind)
            check("statistics are those since clr", kind == "port")
            return { [tonumber(port)] = stats[tonumber(port)] }
        end,
        latency = function(port, what, value)
            if what == "rate" and world.old then error("latency, wrong number of arguments") end
            if what == "rate" and port == "0" then interval = math.min(value, 1000000) end
            if what == "enable" then enabled[port] = true end
        end,
        latsampler_params = function(_, kind, most, per_second, file)
            check("the sampler takes each at its time", kind == "simple" and per_second > 0)
            -- Said in Pktgen's log only.
            if sampler or most > MOST_SAMPLES then return end
            -- It skips what comes within its interval: every other probe, where that is the probes' own.
            params = { most = most, file = file, every = per_second < 2e6 / interval and 2 or 1 }
        end,
        latsampler = function(_, state)
            if state == "enable" then
                if params then sampler, sampled, probed = {}, 0, 0 end
                return
            end
            if sampler == nil then return end
            local file = assert(io.open(params.file, "w"))
            file:write("Latency\n")
            for _, ns in ipairs(sampler) do file:write(string.format("%d\n", ns)) end
            file:close()
            sampler = nil
        end,
        quit = function() m.quit = true end,
    }
    if world.broken then m.pktgen[world.broken] = nil end
    return m
end

local true_getenv, true_open = os.getenv, io.open

-- Runs measure.lua in that world; returns its lines, and what was ordered.
local function run(world, settings)
    os.remove(RESULTS)
    os.remove(SAMPLES)
    local environment = { RESULTS = RESULTS, SAMPLES = SAMPLES, NAME = "row", BYTES = tostring(world.bytes) }
    for key, value in pairs(settings) do environment[key] = tostring(value) end
    local m = model(world)
    pktgen = m.pktgen
    os.getenv = function(key) return environment[string.match(key, "^GODWIT_(.*)$")] end
    -- As the kernel's clock has it: to the hundredth.
    local clock = { read = function() return math.floor(m.ms / 10 + 1e-6) / 100 end, close = function() end }
    io.open = function(path, how) return path == "/proc/uptime" and clock or true_open(path, how) end
    dofile(here .. "/measure.lua")
    os.getenv, io.open = true_getenv, true_open
    check("Pktgen is left", m.quit)
    local lines = {}
    for line in io.lines(RESULTS) do lines[#lines + 1] = parse(line) end
    local last = table.remove(lines)
    check("the end is told", last.done ~= nil)
    local failed = nil
    for _, line in ipairs(lines) do failed = failed or line.failed end
    check("done says whether it failed", last.done == (failed == nil))
    return lines, failed, m.ordered
end

local function last(lines) return lines[#lines] end

local tests = {}

function tests.r76_the_search_finds_the_rate_without_loss()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 37.3 }, { SECONDS = 60 })
    local found = last(lines)
    check("it succeeds", failed == nil)
    check("within the resolution, below", found.zero_loss_percent <= 37.3 and found.zero_loss_percent > 37.19)
    local mpps = found.zero_loss_percent / 100 * 10000 / (84 * 8)
    check("in frames, too", math.abs(found.zero_loss_mpps - mpps) < 0.001)
    check("the switch limits", found.limited_by == "switch")
    for _, line in ipairs(lines) do
        if line.trial and line.rate_percent > 37.3 then check("loss is told", line.received < line.sent) end
    end
end

function tests.r76_a_switch_without_loss_ends_the_search_at_once()
    local lines = run({ mbits = 1000, bytes = 1514, lossless = 100 }, {})
    check("one trial and the result", #lines == 2 and last(lines).zero_loss_percent == 100)
    check("it is what was asked", last(lines).limited_by == "asked")
end

function tests.r76_a_generator_that_falls_short_proves_nothing_about_the_switch()
    local lines, failed = run({ mbits = 100000, bytes = 60, lossless = 100, most = 20 }, {})
    check("the trial at 100 % is void", lines[1].rate_percent == 100 and lines[1].void ~= nil)
    check("below there is a result", failed == nil)
    check("of what was sent", last(lines).zero_loss_percent < 20 / 0.98 and last(lines).zero_loss_percent > 19.8)
    check("and it says who limits", last(lines).limited_by == "generator")
end

function tests.r76_frames_the_generator_could_not_send_void_the_trial()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 100, errors = 1 }, {})
    check("nothing is proved", failed ~= nil and last(lines).zero_loss_percent == nil)
    check("each trial says why", lines[1].void == "the generator could not send 1 frames")
end

function tests.r76_no_rate_without_loss_is_a_failure_and_no_result()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 0 }, {})
    check("it fails", failed ~= nil and string.find(failed, "no rate without loss", 1, true))
    for _, line in ipairs(lines) do check("no figure", line.zero_loss_percent == nil) end
end

function tests.r76_delays_that_take_longer_do_not_change_a_trial()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 37.3, slow = 3.4 }, { SECONDS = 60 })
    check("it succeeds", failed == nil)
    local found = last(lines)
    check("with the same result", found.zero_loss_percent <= 37.3 and found.zero_loss_percent > 37.19)
    check("by the second", math.abs(found.zero_loss_mpps - found.zero_loss_percent * 1e2 / (84 * 8)) < 0.002)
end

function tests.r76_a_generator_that_does_not_get_to_its_clock_voids_the_run()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 100, slow = 33 }, { SECONDS = 60 })
    check("it fails after one trial", failed ~= nil and #lines == 2)
    check("by the clock", string.find(failed, "by the clock", 1, true))
end

function tests.r76_a_link_of_unknown_speed_is_asked_for()
    local silent = { mbits = 10000, believed = 4294967295, bytes = 60, lossless = 100 }
    local _, failed = run(silent, {})
    check("without a speed there is no rate", string.find(failed or "", "--link", 1, true))
    local lines, now = run(silent, { LINK = 10000 })
    check("given, it does", now == nil and last(lines).zero_loss_percent == 100)
    for _, state in ipairs({ "<--Down-->", "<UP-0-FD>" }) do
        _, failed = run({ mbits = 10000, bytes = 60, lossless = 100, state = state }, { LINK = 10000 })
        check("Pktgen sends no share of nothing", string.find(failed or "", "sees no speed", 1, true))
    end
end

function tests.r76_the_rate_is_a_share_of_the_link_that_was_given()
    -- As a memif port: it says 100 Gbit/s.
    local memif = { mbits = 1000, believed = 100000, bytes = 60, lossless = 30 }
    local lines, failed, ordered = run(memif, { LINK = 1000, RATE = 3.125, SECONDS = 10 })
    check("it succeeds", failed == nil and last(lines).zero_loss_percent == 3.125)
    check("46,502 frames a second", math.abs(lines[1].sent - 465029) < 500 and lines[1].sent == lines[1].received)
    check("of Pktgen's link that is less", math.abs(ordered.rate - 0.03125) < 1e-9)
    lines = run(memif, { LINK = 1000 })
    check("the search is in percent of it, too", math.abs(last(lines).zero_loss_percent - 30) < 0.1)
    lines = run({ mbits = 25000, believed = 10000, bytes = 1514, lossless = 100, most = 40 }, { LINK = 25000 })
    check("more than Pktgen's link is not sent", string.find(lines[1].void, "one of 10000 Mbit/s", 1, true))
    check("but as much is", math.abs(last(lines).zero_loss_percent - 40) < 0.1)
    check("and that was the generator", last(lines).limited_by == "generator")
end

function tests.r76_a_generator_that_sends_more_than_asked_proves_nothing_either()
    local lines, failed = run({ mbits = 1000, bytes = 60, lossless = 100, most = 100, eager = 28 }, { RATE = 3.125 })
    check("every trial is void", failed ~= nil and last(lines).zero_loss_percent == nil)
    check("and says by how much", string.find(lines[1].void, "sent 2[78]%d%d%.%d %% of what"))
    local world = { mbits = 10000, bytes = 60, lossless = 100, latency = function() return 1000 end, eager = 1.05 }
    lines, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 2, RATE = 10 })
    check("latency likewise", failed == "all 2 trials are void")
    _, failed = run(world, { MODE = "moves", SECONDS = 10, RATE = 10 })
    check("and a steady load", string.find(failed or "", "105.0 %", 1, true))
end

-- A thousand probes: 1 us, 2 us, ... each once, in an order that is not theirs.
local function ramp(n) return ((n * 7919) % 1000 + 1) * 1000 end

-- The clock is to the hundredth of a second: a probe more or less.
local function near(value, wanted) return math.abs(value - wanted) <= 1 end

function tests.r76_latency_has_minimum_percentiles_and_variation()
    local world = { mbits = 10000, bytes = 1514, lossless = 100, latency = ramp }
    local lines, failed, ordered = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 3, RATE = 10 })
    check("three trials", failed == nil and #lines == 3)
    for n, line in ipairs(lines) do
        check("numbered", line.trial == n and line.rate_percent == 10)
        check("a thousand probes a second", line.probes >= 9990 and line.probes <= 10000)
        check("sorted", near(line.min_us, 1) and near(line.p50_us, 500) and near(line.p99_us, 990))
        check("the tail", near(line.p999_us, 999) and near(line.max_us, 1000))
        check("PDV is the 99.9th percentile less the minimum", line.pdv_us == line.p999_us - line.min_us)
        check("the length is the background's", line.background_bytes == 1514)
    end
    check("with FCS for Pktgen", ordered.size == 1518)
end

function tests.r76_trials_of_two_minutes_stay_within_what_pktgen_samples()
    local world = { mbits = 10000, bytes = 60, lossless = 100, latency = ramp }
    local lines, failed = run(world, { MODE = "latency", SECONDS = 120, REPEATS = 20, RATE = 10 })
    check("all twenty count", failed == nil and #lines == 20)
    check("many probes", lines[20].void == nil and lines[20].probes > 40000 and lines[20].probes <= 50000)
end

function tests.r76_probes_that_do_not_come_back_void_the_trial()
    local world = { mbits = 10000, bytes = 60, lossless = 100, latency = ramp, probes_lost = 1 }
    local lines, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 2, RATE = 10 })
    check("none", failed ~= nil and lines[1].void ~= nil and lines[2].void ~= nil)
    world.probes_lost = 0.6
    lines, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 2, RATE = 10 })
    check("too few", failed ~= nil and string.find(lines[1].void, "^%d+ of 10000 probes came back"))
    world.probes_lost = 0.1
    lines, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 2, RATE = 10 })
    check("enough", failed == nil and math.abs(lines[1].probes - 9000) < 2)
end

function tests.r76_an_older_release_sends_the_probes_that_it_sends()
    local world = { mbits = 10000, bytes = 60, lossless = 100, latency = ramp, old = true }
    local lines, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 1, RATE = 10 })
    check("a hundred a second", failed == nil and near(lines[1].probes, 1000))
end

function tests.r76_a_mistake_ends_the_run_and_is_told()
    local world = { mbits = 10000, bytes = 60, lossless = 100, broken = "set_proto", latency = ramp }
    local _, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 1, RATE = 10 })
    check("it says which", string.find(failed or "", "set_proto", 1, true))
end

function tests.r76_latency_under_less_load_than_asked_is_void()
    local world = { mbits = 10000, bytes = 60, lossless = 100, latency = ramp, most = 5 }
    local _, failed = run(world, { MODE = "latency", SECONDS = 10, REPEATS = 2, RATE = 10 })
    check("it fails", failed == "all 2 trials are void")
end

function tests.r76_a_steady_load_tells_what_was_lost()
    local lines, failed = run({ mbits = 10000, bytes = 60, lossless = 5 }, { MODE = "moves", RATE = 10, SECONDS = 20 })
    check("it says when moves may begin", lines[1].ready == true)
    check("and what was lost", failed == nil and last(lines).lost == last(lines).sent - last(lines).received)
    check("something was", last(lines).lost > 0)
    _, failed = run({ mbits = 10000, bytes = 60, lossless = 100, most = 5 }, { MODE = "moves", RATE = 10 })
    check("a load that was not there is no load", failed ~= nil)
end

local names = {}
for test in pairs(tests) do names[#names + 1] = test end
table.sort(names)
for _, test in ipairs(names) do
    local good, why = pcall(tests[test])
    os.getenv, io.open = true_getenv, true_open
    if not good then
        io.stderr:write(test, ": ", tostring(why), "\n")
        os.exit(1)
    end
end
print(string.format("%d tests, %d checks", #names, checked))
