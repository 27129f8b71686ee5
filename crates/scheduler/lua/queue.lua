-- The queue: score; member (start), arrival, session, tokens in and out, (tenant, cost), tried, priority: equal scores sort by member

queue = part(function(queue)
  -- A ticket that comes into a full queue is the worst itself.
  queue.REFUSE = {}
  -- Joins and leaves of the sender, written together where they come in a row.
  local later, later_command = {}, nil
  -- The front is read in growing parts; what was taken from it is removed in one go.
  local front, at, taken, part = {}, 1, 0, 1

  -- The priority; or with aging the time at which the best priority would have had to come to stand there. Priorities worth more than 142 years are alike.
  -- `arrival`: with fair shares, the start.
  function queue.score(priority, arrival)
    if rules.aging == 0 then return priority end
    return min(arrival + max(min(priority * rules.aging, MAX_HANDICAP), -MAX_HANDICAP), NEVER - 1)
  end

  -- An entry has priority, arrival, session, input and output tokens, the deployments that its request has tried (as bits); with fair shares tenant and cost, and where its tenant's turn begins. Where it comes from the queue,
  -- score and member.
  local function member_of(entry)
    if not rules.fair then
      return format('%016d%s%016d%016d%016d%d', entry.arrival, entry.session, entry.input, entry.output, entry.tried, entry.priority)
    end
    return format(
      '%016d%016d%s%016d%016d%016d%016d%016d%d', entry.start, entry.arrival, entry.session, entry.input, entry.output, entry.tenant, entry.cost,
      entry.tried, entry.priority
    )
  end

  local function entry_of(member, score)
    local function digits(from) return tonumber(member:sub(from, from + 15)) end
    if not rules.fair then
      return {
        score = tonumber(score), member = member, start = 0, arrival = digits(1), session = member:sub(17, 32), input = digits(33),
        output = digits(49), tried = digits(65), priority = tonumber(member:sub(81)),
      }
    end
    return {
      score = tonumber(score), member = member, start = digits(1), arrival = digits(17), session = member:sub(33, 48), input = digits(49),
      output = digits(65), tenant = digits(81), cost = digits(97), tried = digits(113), priority = tonumber(member:sub(129)),
    }
  end

  -- With aging better tickets can wait behind the head. How many entries there are that pacing, and that a reserve does not hold is counted then: they are
  -- written one by one.
  local function counts() return rules.aging > 0 end

  local function count(priority, entries)
    local better = state.better
    if not counts() then return end
    if priority <= rules.pace_worse_than then better[1] = better[1] + entries end
    if priority <= rules.reserve_priority then better[2] = better[2] + entries end
  end

  -- Whether a ticket that these do not hold waits behind the head.
  function queue.spares_pace() return counts() and state.better[1] > 0 end
  function queue.spares_reserve() return counts() and state.better[2] > 0 end

  function queue.write_later()
    if #later == 0 then return end
    local written = store.write_all(later_command, QUEUE, later)
    if later_command == 'ZREM' then written = -written end
    state.size = state.size + written
    step.own.waiting = step.own.waiting + written
    later = {}
    return written
  end

  -- A ticket of the sender's enters. `told`: with fair shares, where its turn began, if it has had one.
  function queue.enter(entry, told, entered)
    if rules.fair then
      if fair.enter(entry, told, entered) then step.own.waiting = step.own.waiting + 1 end
      return
    end
    if later_command ~= 'ZADD' then queue.write_later() end
    later_command = 'ZADD'
    later[#later + 1] = queue.score(entry.priority, entry.arrival)
    later[#later + 1] = member_of(entry)
    if counts() then count(entry.priority, queue.write_later()) end
  end

  -- A ticket of the sender's leaves.
  function queue.leave(entry)
    if rules.fair then
      if fair.leave(entry, false) then step.own.waiting = step.own.waiting - 1 end
      return
    end
    if later_command ~= 'ZREM' then queue.write_later() end
    later_command = 'ZREM'
    later[#later + 1] = member_of(entry)
    if counts() then count(entry.priority, queue.write_later()) end
  end

  -- With fair shares: the first of a line comes into the queue, or leaves it.
  function queue.put(entry)
    store.write('ZADD', QUEUE, queue.score(entry.priority, entry.start), member_of(entry))
    state.size = state.size + 1
    count(entry.priority, 1)
    front, at, part = {}, 1, 1
  end

  function queue.cut(entry)
    store.write('ZREM', QUEUE, member_of(entry))
    state.size = state.size - 1
    count(entry.priority, -1)
    front, at, part = {}, 1, 1
  end

  -- Whether so many may wait. Those not written yet may be there already: only where it matters is it found out.
  function queue.is_full(most)
    if group.depth() + #later / 2 >= most then queue.write_later() end
    return group.depth() >= most
  end

  -- Whether an entry's session has ended or lost its entry in the queue.
  local function is_orphaned(entry)
    local owner = sessions:get(entry.session)
    return not owner or owner.unresponsive
  end

  -- With their sessions known, and their lines.
  local function known(entries)
    local owners = {}
    for i, entry in ipairs(entries) do owners[i] = entry.session end
    sessions:fetch(owners)
    if rules.fair then fair.fetch(entries) end
    return entries
  end

  -- Queue entries in order, by rank.
  local function read(from, to)
    local found, entries = call('ZRANGE', QUEUE, from, to, 'WITHSCORES'), {}
    for i = 1, #found, 2 do entries[#entries + 1] = entry_of(found[i], found[i + 1]) end
    return known(entries)
  end

  function queue.remove(entry)
    if rules.fair then
      fair.leave(entry, false)
    else
      store.write('ZREM', QUEUE, entry.member)
      state.size = state.size - 1
      count(entry.priority, -1)
    end
    queue.left(entry)
  end

  -- An entry has left: its session has one less.
  function queue.left(entry)
    local owner = sessions:get(entry.session)
    owner.waiting = owner.waiting - 1
    sessions:put(entry.session, owner)
  end

  local function may_drop()
    if step.dropped == MAX_ORPHANS then step.more = true end
    return step.dropped < MAX_ORPHANS
  end

  -- The last entry that is no orphan; orphans behind it are dropped. nil: there are more of them than one step drops (P16).
  local function last()
    while true do
      local from = max(state.size - (state.orphans > 0 and MAX_SWEEP or 1), 0)
      local entries = read(from, state.size - 1)
      local keep = #entries
      while keep > 0 and is_orphaned(entries[keep]) and may_drop() do
        keep, step.dropped = keep - 1, step.dropped + 1
      end
      local orphans = #entries - keep
      if orphans > 0 then
        store.write('ZREMRANGEBYRANK', QUEUE, from + keep, from + #entries - 1)
        for i = keep + 1, #entries do count(entries[i].priority, -1) end
        state.orphans, state.size = state.orphans - orphans, state.size - orphans
      end
      if keep > 0 then return not is_orphaned(entries[keep]) and entries[keep] or nil end
    end
  end

  -- What happens when a ticket comes into a full queue: REFUSE, as it is the worst itself; or the one that has to go, the last or with fair shares the newest of
  -- the longest line of the worst priority; or nil: more orphaned entries stand behind than one step drops, and it comes in above the cap.
  function queue.overflow(entry)
    if not rules.fair then
      local worst, score = last(), queue.score(entry.priority, entry.arrival)
      local better = worst and (score < worst.score or (score == worst.score and not store.before(worst.member, member_of(entry))))
      return better and worst or worst and queue.REFUSE
    end
    while true do
      local newest, own = fair.worst(entry)
      if not newest then return queue.REFUSE end
      known({ newest })
      if not is_orphaned(newest) then return (not own or newest.arrival >= entry.arrival) and newest or queue.REFUSE end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      fair.leave(newest, false)
      state.orphans = state.orphans - 1
    end
  end

  function queue.save()
    queue.write_later()
    if taken > 0 then store.write('ZREMRANGEBYRANK', QUEUE, 0, taken - 1) end
    front, at, taken = {}, 1, 0
  end

  function queue.first()
    if not front[at] and state.size > 0 then
      queue.save()
      front = read(0, min(part, state.size) - 1)
      part = min(part * 4, 128)
    end
    return front[at]
  end

  -- `served`: it is granted.
  function queue.take_first(served)
    if rules.fair then
      fair.leave(front[at], served)
      return
    end
    count(front[at].priority, -1)
    at, taken, state.size = at + 1, taken + 1, state.size - 1
  end

  -- The first entry that is no orphan; orphans before it are dropped, at most MAX_ORPHANS in one step (P16).
  function queue.head()
    while true do
      local entry = queue.first()
      if not entry or not is_orphaned(entry) then return entry end
      if not may_drop() then return nil end
      step.dropped = step.dropped + 1
      queue.take_first(false)
      state.orphans = state.orphans - 1
    end
  end

  -- Drops the orphans among these; returns where to go on.
  local function sweep_these(entries, from, most)
    local orphans, members = 0, {}
    for _, entry in ipairs(entries) do
      if is_orphaned(entry) then
        orphans = orphans + 1
        if rules.fair then
          fair.leave(entry, false)
        else
          members[orphans] = entry.member
          count(entry.priority, -1)
        end
      end
    end
    state.size = state.size - store.write_all('ZREM', QUEUE, members)
    state.orphans = state.orphans - orphans
    step.dropped = step.dropped + orphans
    return #entries < most and 0 or from + most - orphans
  end

  -- Looks at some entries, and with fair shares at as many tickets behind the first of their line, for those of ended sessions, so that they do not stay for ever behind
  -- better ones.
  function queue.sweep()
    if state.orphans == 0 then
      state.sweep, state.sweep_behind = 0, 0
      return
    end
    queue.save()
    part = 1
    -- At no more than may be dropped.
    local function most() return min(MAX_SWEEP, MAX_ORPHANS - step.dropped) end
    local entries, room = {}, most()
    if room > 0 and state.sweep < state.size then entries = read(state.sweep, min(state.sweep + room, state.size) - 1) end
    state.sweep = sweep_these(entries, state.sweep, room)
    room = most()
    if rules.fair then state.sweep_behind = sweep_these(known(fair.look(state.sweep_behind, room)), state.sweep_behind, room) end
  end
end)
