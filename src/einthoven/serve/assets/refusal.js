// A refusal: its message is the problem.

export class Refusal extends Error {
  constructor({ problem, remedy }, status) {
    super(problem);
    this.remedy = remedy;
    this.status = status;
  }
}
